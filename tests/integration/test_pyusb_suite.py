"""PyUSB's own test suite, unmodified from its source distribution, against our backend over a real socket."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.pyusb_test_device import BUSID, pyusb_test_server
from tests.oracles.pcapng_reader import read_capture
from tests.oracles.suites_of_others import own_suite
from tests.waiting import wait_until
from usbip_capture.servers.address import ServerAddress
from usbip_capture.usb.urb import TransferType

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RUNNER = Path(__file__).with_name("run_pyusb_suite.py")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `tests` folder of the source distribution of the PyUSB that is installed."""
    return own_suite("pyusb", "tests", "usb", tmp_path_factory.mktemp("pyusb"))


@pytest.mark.parametrize("captured", [False, True], ids=["capture off", "capture on"])
def test_pyusb_s_own_tests_pass(suite: Path, tmp_path: Path, captured: bool) -> None:
    target = tmp_path / "suite.pcapng"
    server = pyusb_test_server()
    port = server.listen("127.0.0.1", 0)[1]
    try:
        command = [sys.executable, str(RUNNER), str(suite), str(port), *([str(target)] if captured else [])]
        done = subprocess.run(
            command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False
        )
        exported = ServerAddress("127.0.0.1", port)
        wait_until("the device is listed again", lambda: [info.busid for info in exported.devices()] == [BUSID])
    finally:
        server.close()
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Ran 23 tests", done.stderr, re.MULTILINE), done.stderr
    if captured:
        kinds = {packet.usb.xfer_type for packet in read_capture(target) if packet.usb}
        assert kinds == set(TransferType)
