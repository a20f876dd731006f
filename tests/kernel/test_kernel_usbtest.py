"""The kernel's own USB test suite on a gadget, through our server and through the kernel's, side by side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.lending import Lending
from tests.kernel.rig import PythonGuest
from tests.kernel.usbtest import CASES, GADGET_ZERO, PASSED, WITHOUT_ENDPOINTS, run_case, table

pytestmark = pytest.mark.kernel

OURS, KERNELS = "usbip_capture", "usbip-host"


@pytest.fixture
def gadget(lending: Lending) -> Iterator[str]:
    """A SourceSink gadget in the server's guest, on dummy_hcd, with bytes that count in its data; its busid."""
    guest = lending.guest
    guest.gadget(["SourceSink.0"], "dummy_udc.0", {"SourceSink.0/pattern": "1"}, ids=GADGET_ZERO)
    yield f"{guest.bus('dummy')}-1"
    guest.remove_gadget()


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.long)])
def test_each_case_that_the_kernels_server_passes(
    lending: Lending, borrower: PythonGuest, gadget: str, times: int
) -> None:
    results = {}
    for server in (OURS, KERNELS):
        if server == OURS:
            lending.wait_available(gadget)
            port = lending.port
        else:
            lending.stop()
            lending.guest.export(gadget)
            port = lending.guest.usbip_port
        local = borrower.attach(port, gadget)
        file = borrower.device_file(local)
        results[server] = {case.number: run_case(borrower, file, case, times) for case in CASES}
        borrower.detach(local)
    lending.guest.run(f"usbip unbind -b {gadget}")
    print(table(results))  # noqa: T201 - shown by -s, and where it fails
    passed = {server: {number for number, result in results[server].items() if result == PASSED} for server in results}
    assert passed[OURS] == {case.number for case in CASES} - WITHOUT_ENDPOINTS
    assert passed[OURS] >= passed[KERNELS]
