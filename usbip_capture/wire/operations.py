"""The client's side of the OP messages: one request, one reply, before any URB.

Each exchange returns how many bytes it still wants, so that nothing after the reply is read.

Ref: Linux Documentation/usb/usbip_protocol.rst, OP_REQ_DEVLIST ... OP_REP_IMPORT
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from usbip_capture.errors import ImportRefused, RemoteProtocolError, StrayReply
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo
from usbip_capture.wire import structs

#: More than any machine has: counts from the wire above these are lies.
MAX_DEVICES, MAX_INTERFACES = 4096, 8 * 4096


class Exchange(ABC):
    """One OP request and its reply. Send `request`, then feed exactly `wanted` bytes until that is 0."""

    request: bytes
    _reply_code: int

    def __init__(self) -> None:
        self.wanted = structs.OP_COMMON.size
        self._step = self._common

    def receive(self, data: bytes) -> None:
        """Take the next `wanted` bytes. Raises RemoteProtocolError, or ImportRefused for a refusal."""
        if len(data) != self.wanted:
            raise RemoteProtocolError("the server closed the connection in the middle of its reply")
        self._step(data)

    def _common(self, data: bytes) -> None:
        version, code, status = structs.OP_COMMON.unpack(data)
        if version == 0 and code in (structs.USBIP_RET_SUBMIT, structs.USBIP_RET_UNLINK):
            raise StrayReply("the server sent the reply to a request of an earlier connection")
        if code != self._reply_code or version >> 8 != structs.VERSION >> 8:
            raise RemoteProtocolError(f"this is not a USB/IP server: it answered {_quoted(data)}")
        structs.check_version(version)
        self._begin(status)

    def _want(self, size: int) -> None:
        self.wanted = size

    @abstractmethod
    def _begin(self, status: int) -> None:
        """Go on after the common header."""


class DevlistExchange(Exchange):
    """OP_REQ_DEVLIST: `devices` is filled when `wanted` is 0."""

    request = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REQ_DEVLIST, 0)
    _reply_code = structs.OP_REP_DEVLIST

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[DeviceInfo] = []
        self._left = 0
        self._interfaces_left = MAX_INTERFACES
        self._raw = b""

    def _begin(self, status: int) -> None:
        if status:
            raise RemoteProtocolError(f"the server does not list its devices: {structs.op_status_text(status)}")
        self._step = self._count
        self._want(structs.DEVLIST_COUNT.size)

    def _count(self, data: bytes) -> None:
        (self._left,) = structs.DEVLIST_COUNT.unpack(data)
        if self._left > MAX_DEVICES:
            raise RemoteProtocolError(f"the server claims to export {self._left} devices, which cannot be")
        self._next()

    def _next(self) -> None:
        self._step = self._device
        self._want(structs.DEVICE.size if self._left else 0)

    def _device(self, data: bytes) -> None:
        self._left -= 1
        info = structs.unpack_device(data)
        self._interfaces_left -= info.bNumInterfaces
        if self._interfaces_left < 0:
            raise RemoteProtocolError(f"the server claims to export more than {MAX_INTERFACES} interfaces")
        if info.bNumInterfaces:
            self._raw = data
            self._step = self._interfaces
            self._want(structs.INTERFACE.size * info.bNumInterfaces)
        else:
            self.devices.append(info)
            self._next()

    def _interfaces(self, data: bytes) -> None:
        interfaces = [InterfaceInfo(*codes) for codes in structs.INTERFACE.iter_unpack(data)]
        self.devices.append(structs.unpack_device(self._raw, interfaces))
        self._next()


class ImportExchange(Exchange):
    """OP_REQ_IMPORT: `info` is filled when `wanted` is 0; a refusal raises ImportRefused."""

    _reply_code = structs.OP_REP_IMPORT

    def __init__(self, busid: str) -> None:
        super().__init__()
        self.busid = busid
        self.request = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REQ_IMPORT, 0) + structs.pack_busid(busid)
        self.info: DeviceInfo | None = None

    def _begin(self, status: int) -> None:
        if status:
            raise ImportRefused(f"device {self.busid} cannot be imported: {structs.op_status_text(status)}", status)
        self._step = self._device
        self._want(structs.DEVICE.size)

    def _device(self, data: bytes) -> None:
        info = structs.unpack_device(data)
        if not info.busid:
            raise StrayReply(f"the server sent device {info.busid!r} when asked for {self.busid!r}")
        if info.busid != self.busid:
            raise RemoteProtocolError(f"the server sent device {info.busid!r} when asked for {self.busid!r}")
        self.info = info
        self._want(0)


def _quoted(data: bytes) -> str:
    text = data.decode("ascii", "replace")
    return repr(text) if text.isprintable() else data.hex(" ")
