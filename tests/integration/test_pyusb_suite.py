"""PyUSB's own test suite, unmodified from its source distribution, against our backend over a real socket.

Before a simulated device, and before one of this machine that our `serve` lends by libusb: simulated at its edge, or
the real one on an emulated usbfs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from tests.builders.local_usb import local_usb
from tests.fakes.pyusb_test_device import BUSID, PyusbTestDevice, pyusb_test_server
from tests.oracles.pcapng_reader import read_capture
from tests.oracles.suites_of_others import own_suite
from tests.programs.emulated_usbfs import ENVIRONMENT, ROOT, on_emulated_usbfs
from tests.waiting import wait_until
from usbip_capture import serve
from usbip_capture.servers.address import ServerAddress
from usbip_capture.usb.urb import TransferType

pytestmark = pytest.mark.slow

PYUSB_TEST_IDS = "04d8:fa2e"
#: Until its standard input ends. Prints busid and port.
SERVING = """
import sys, usbip_capture
with usbip_capture.serve(sys.argv[1], listen="127.0.0.1:0") as server:
    (info,) = server.devices
    print(info.busid, server.addresses[0][1], flush=True)
    sys.stdin.read()
"""
RUNNER = Path(__file__).with_name("run_pyusb_suite.py")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `tests` folder of the source distribution of the PyUSB that is installed."""
    return own_suite("pyusb", "tests", "usb", tmp_path_factory.mktemp("pyusb"))


@contextmanager
def simulated() -> Iterator[tuple[int, str]]:
    """A server with the device, as simulated; its port, and the busid."""
    with closing(pyusb_test_server()) as server:
        yield server.listen("127.0.0.1", 0)[1], BUSID


@contextmanager
def lent() -> Iterator[tuple[int, str]]:
    """Lent by `serve`, taken from its kernel driver on a machine whose libusb is simulated."""
    with local_usb(simulated=PyusbTestDevice()) as usb:
        usb.raw.bind(0, "usbtest")
        with serve(PYUSB_TEST_IDS, listen="127.0.0.1:0", bus=usb.bus) as server:
            (info,) = server.devices
            yield server.addresses[0][1], info.busid
        assert usb.raw.drivers == {0: "usbtest"}


@contextmanager
def lent_by_real_libusb() -> Iterator[tuple[int, str]]:
    """Lent by `serve` of a program with the real libusb, on an emulated usbfs."""
    command = on_emulated_usbfs("pyusb", sys.executable, "-c", SERVING, PYUSB_TEST_IDS)
    with subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        busid, port = program.stdout.readline().split()
        yield int(port), busid
        program.stdin.close()
        assert program.wait(60) == 0


SERVERS = {"simulated": simulated, "lent": lent, "lent by real libusb": lent_by_real_libusb}


@pytest.mark.parametrize("captured", [False, True], ids=["capture off", "capture on"])
@pytest.mark.parametrize("served", SERVERS.values(), ids=SERVERS)
def test_pyusb_s_own_tests_pass(
    suite: Path, tmp_path: Path, served: Callable[[], AbstractContextManager[tuple[int, str]]], captured: bool
) -> None:
    target = tmp_path / "suite.pcapng"
    with served() as (port, busid):
        command = [sys.executable, str(RUNNER), str(suite), str(port), *([str(target)] if captured else [])]
        done = subprocess.run(
            command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False
        )
        exported = ServerAddress("127.0.0.1", port)
        wait_until("the device is listed again", lambda: [info.busid for info in exported.devices()] == [busid])
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Ran 23 tests", done.stderr, re.MULTILINE), done.stderr
    if captured:
        kinds = {packet.usb.xfer_type for packet in read_capture(target) if packet.usb}
        assert kinds == set(TransferType)
