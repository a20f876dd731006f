"""The kernel's own USB test suite on a gadget, through our server and through the kernel's, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kernel.lending import Lending
from tests.kernel.rig import PythonGuest
from tests.kernel.usbtest import CASES, GADGET_ZERO, HANGS, MEASURED, PASSED, WITHOUT_ENDPOINTS, Case, run_case, table

pytestmark = pytest.mark.kernel

OURS, KERNELS = "usbip_capture", "usbip-host"


@pytest.mark.parametrize(
    ("servers", "times"),
    [
        pytest.param((OURS,), 1, id="ours"),
        pytest.param((OURS, KERNELS), 1, id="side by side", marks=pytest.mark.long),
        pytest.param((OURS, KERNELS), 10, id="ten times as many", marks=pytest.mark.long),
    ],
)
def test_each_case_that_the_kernels_server_passes(lending: Lending, servers: tuple[str, ...], times: int) -> None:
    results: dict[str, dict[int, str]] = {}
    for server in servers:
        results[server] = {}
        with PythonGuest() as client:  # of its own: a case that hangs cannot be ended
            client.run("modprobe -a vhci-hcd usbtest")
            for measured in (True, False):
                cases = [case for case in CASES if (case.number in MEASURED) == measured]
                with lent_gadget(server, lending, pattern=not measured) as (port, busid):
                    results[server] |= run_cases(client, client.attach(port, busid), cases, times, pattern=not measured)
                    if HANGS in results[server].values():
                        client.close()  # it does not let go of the device either
                    else:
                        client.detach_all()
    print(table(results))  # noqa: T201 - shown by -s, and where it fails
    passed = {server: {number for number, result in results[server].items() if result == PASSED} for server in results}
    assert passed[OURS] == {case.number for case in CASES} - WITHOUT_ENDPOINTS
    assert all(passed[OURS] >= others for others in passed.values())


def run_cases(client: PythonGuest, local: str, cases: list[Case], times: int, *, pattern: bool) -> dict[int, str]:
    """Up to one that hangs."""
    client.run(f"echo {int(pattern)} >/sys/module/usbtest/parameters/pattern")
    file, results = client.device_file(local), {}
    for case in cases:
        results[case.number] = run_case(client, file, case, times, timeout=10.0 * times)
        if results[case.number] == HANGS:
            break
    return results


@contextmanager
def lent_gadget(server: str, lending: Lending, *, pattern: bool) -> Iterator[tuple[int, str]]:
    """A SourceSink gadget on dummy_hcd, with zeros in its data or bytes that count; lent by one of the servers.

    Yields that one's port here, and the busid.
    """
    guest = lending.guest
    if server == KERNELS and lending.program.alive:
        lending.stop()
    guest.gadget(["SourceSink.0"], "dummy_udc.0", {"SourceSink.0/pattern": str(int(pattern))}, ids=GADGET_ZERO)
    busid = f"{guest.bus('dummy')}-1"
    try:
        if server == OURS:
            lending.wait_available(busid)
            yield lending.port, busid
        else:
            yield guest.usbip_port, guest.export(busid)
    finally:
        if server == KERNELS:
            guest.run(f"usbip unbind -b {busid}")
        guest.remove_gadget()
    if server == OURS:
        lending.wait_removed(busid)
