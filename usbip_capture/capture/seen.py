"""What has been learnt of a device while it was in use: a capture that begins later has it first."""

from __future__ import annotations

from usbip_capture.usb.setup import GET_DESCRIPTOR, RECIPIENT_INTERFACE, SET_CONFIGURATION, SET_INTERFACE
from usbip_capture.usb.urb import Completion, TransferType, Urb

#: Requests that are kept, and the bytes of their data.
_MAX_REQUESTS = 256
_MAX_BYTES = 512 << 10
_DEVICE_IN, _INTERFACE_IN = 0x80, 0x80 | RECIPIENT_INTERFACE
_CONTROL = TransferType.CONTROL


class SeenRequests:
    """Descriptors as they were read, and the settings made: control transfers, the last one of each kind."""

    def __init__(self) -> None:
        self._found: dict[bytes, tuple[Urb, Completion]] = {}
        self._bytes = 0

    @property
    def requests(self) -> list[tuple[Urb, Completion]]:
        """In the order in which they were first seen."""
        return list(self._found.values())

    def saw(self, urb: Urb, completion: Completion) -> None:
        """A URB came back: keep it if it describes the device."""
        if urb.transfer_type is not _CONTROL or completion.status:
            return
        setup = urb.setup
        kind, request = setup[0], setup[1]
        if request == GET_DESCRIPTOR and kind in (_DEVICE_IN, _INTERFACE_IN):
            self._keep(bytes(setup[:6]), urb, completion)  # whatever length was asked for
        elif request == SET_CONFIGURATION and not kind:
            for key in [key for key in self._found if key[1] == SET_INTERFACE]:
                del self._found[key]
            self._keep(bytes(setup[:2]), urb, completion)
        elif request == SET_INTERFACE and kind == RECIPIENT_INTERFACE:
            self._keep(bytes((kind, request, setup[4], setup[5])), urb, completion)

    def _keep(self, key: bytes, urb: Urb, completion: Completion) -> None:
        known = self._found.get(key)
        size = len(completion.data)
        if known is not None and len(known[1].data) > size:
            return  # the head of what is there as a whole
        if known is None and (len(self._found) >= _MAX_REQUESTS or self._bytes + size > _MAX_BYTES):
            return
        self._bytes += size - (0 if known is None else len(known[1].data))
        copy = Completion(completion.status, completion.actual_length, bytes(completion.data))
        self._found[key] = urb, copy
