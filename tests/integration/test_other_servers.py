"""PyUSB on servers that are not ours, and on what is known of others."""

from __future__ import annotations

import importlib.util
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import usb.core

from tests.fakes.scripted_server import ScriptedServer, answer_devlist, answer_import, read_exactly, ret_submit
from tests.waiting import wait_until
from usbip_capture import get_backend
from usbip_capture.cli.main import main
from usbip_capture.demo.device import BULK_IN, DESCRIPTORS
from usbip_capture.errors import UsbipError
from usbip_capture.servers.address import ServerAddress
from usbip_capture.wire.structs import USBIP_CMD_SUBMIT

# The example of the documentation of PyPI's `usbip`, on a port of its own.
VIRTUAL = """\
import sys
from usbip import In, Interface, Out, USBDevice
from usbip.transport import USBIP

class Echo(Interface):
    bInterfaceClass = 0xFF
    bulk_out = Out(0x01, "bulk", mps=64)
    bulk_in = In(0x81, "bulk", mps=64)

dev = USBDevice(0x1209, 0x0004, manufacturer="usbip", product="Echo", serial="0004")
echo = dev.add(Echo())
dev.plug(via=USBIP("127.0.0.1", int(sys.argv[1])))
while True:
    data = echo.bulk_out.read(timeout=1.0)
    if data:
        echo.bulk_in.write(data)
"""


@pytest.fixture
def virtual(tmp_path: Path) -> Iterator[int]:
    """The port of a server made with PyPI's `usbip`."""
    if importlib.util.find_spec("usbip") is None:
        pytest.skip("PyPI's usbip is not installed")
    (tmp_path / "virtual.py").write_text(VIRTUAL)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "virtual.py", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, env=dict(os.environ), stdout=subprocess.DEVNULL)

    def listed() -> bool:
        try:
            return bool(ServerAddress("127.0.0.1", port).devices())
        except UsbipError:
            return False

    try:
        wait_until("it listens", listed)
        yield port
    finally:
        process.kill()
        process.wait()


def test_usbip_of_pypi(virtual: int) -> None:
    with get_backend("127.0.0.1", virtual) as backend:
        dev = usb.core.find(backend=backend)
        assert (dev.product, dev.serial_number) == ("Echo", "0004")
        for _ in range(3):
            with pytest.raises(usb.core.USBTimeoutError):
                dev.read(0x81, 64, 20)
        data = bytes(range(256)) * 40
        assert dev.write(0x01, data, 20_000) == len(data)
        got = b""
        while len(got) < len(data):
            got += bytes(dev.read(0x81, len(data), 20_000))
        assert got == data
        dev.reset()
        assert dev.write(0x01, b"x", 20_000) == 1


def test_selftest_of_usbip_of_pypi(virtual: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", f"127.0.0.1:{virtual}"]) == 0
    assert "UNLINK, pending" in capsys.readouterr().out


def test_unlinks_that_are_never_answered() -> None:
    """pyusbip: the URB that was unlinked comes as a RET_SUBMIT with libusb's own number, at some time."""
    late = threading.Event()

    def pyusbip(sock: socket.socket) -> None:
        answer_import(sock)
        reading = 0
        while True:
            header = read_exactly(sock, 48)
            command, seqnum, _, _, endpoint, _, length = struct.unpack_from(">7I", header)
            if command != USBIP_CMD_SUBMIT:
                assert late.wait(20)
                sock.sendall(ret_submit(reading, -3))
            elif endpoint:
                reading = seqnum
            else:
                answers = {1: DESCRIPTORS.device, 2: DESCRIPTORS.configurations[0]}
                data = answers.get(header[43], b"")[:length] if header[41] == 6 else b""
                sock.sendall(ret_submit(seqnum, 0, len(data), data))

    with ScriptedServer(answer_devlist, pyusbip) as server, get_backend("127.0.0.1", server.port) as backend:
        dev = usb.core.find(backend=backend)
        dev.get_active_configuration()
        start = time.monotonic()
        with pytest.raises(usb.core.USBTimeoutError):
            dev.read(BULK_IN, 64, 20)
        assert time.monotonic() - start < 10  # it was not waited for
        late.set()
        assert len(dev.ctrl_transfer(0x80, 6, 0x0100, 0, 18, 20_000)) == 18
