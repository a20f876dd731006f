"""Time-outs with servers that have their own ways to report that a URB was unlinked."""

from __future__ import annotations

import socket
import struct

import pytest
import usb.core

from tests.fakes.scripted_device import ScriptedDevice
from tests.fakes.scripted_server import ScriptedServer, answer_devlist, read_exactly, ret_submit
from usbip_capture import AsynchronousDevice, get_backend
from usbip_capture.demo.device import BULK_IN
from usbip_capture.host import handle
from usbip_capture.pyusb_backend import asynchronous
from usbip_capture.usb.setup import Setup
from usbip_capture.wire import structs


class OwnNumber(ScriptedDevice):
    """Answers a CMD_UNLINK with the RET_SUBMIT of its URB, its status one of no system's: libusb's -3 (pyusbip)."""

    status = -3

    def __call__(self, sock: socket.socket) -> None:
        read_exactly(sock, 40)
        sock.sendall(structs.OP_COMMON.pack(0x0111, structs.OP_REP_IMPORT, 0) + structs.pack_device(self.info))
        while True:
            header = read_exactly(sock, 48)
            command, seqnum, _, _, endpoint, target, length = struct.unpack_from(">IIIIIIi", header)
            if command == structs.USBIP_CMD_UNLINK:
                sock.sendall(ret_submit(target, self.status))
            elif not endpoint:
                sock.sendall(self._answer(Setup.unpack(header[40:]), seqnum, length, None))


def read(dev: usb.core.Device) -> object:
    return dev.read(BULK_IN, 64, 20)


def read_asynchronously(dev: usb.core.Device) -> object:
    with AsynchronousDevice(dev) as device:
        return device.read(BULK_IN, 64, 20).result(20)


@pytest.mark.parametrize("call", [read, read_asynchronously])
@pytest.mark.parametrize(("status", "error"), [(-3, usb.core.USBTimeoutError), (-32, usb.core.USBError)])
def test_what_we_unlinked_has_timed_out(
    call: object, status: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a status that is known, such as a stall, the transfer has won the race and failed."""
    monkeypatch.setattr(handle, "_MIN_GRACE", 20.0)  # however busy this machine is
    monkeypatch.setattr(handle, "UNLINK_GRACE", 20.0)
    monkeypatch.setattr(asynchronous, "UNLINK_GRACE", 20.0)
    device = OwnNumber()
    device.status = status
    with ScriptedServer(answer_devlist, device) as server, get_backend("127.0.0.1", server.port) as backend:
        dev = usb.core.find(backend=backend)
        dev.set_configuration()
        assert callable(call)
        with pytest.raises(usb.core.USBError) as caught:
            call(dev)
        assert type(caught.value) is error
