"""Decides which device a client gets before any byte of that passes: while rules name devices, and none is imported.

One exchange at a time: the request goes to the server when it is whole and not denied by its busid, the reply to the
client when it is decided. What a client sends ahead of the reply is not read: its own TCP holds it. An import that is
denied is answered as by a server that has no such device, and its connection to the server is broken off. Devices that
the client may not have are left out of lists. With the import that is granted the gate is gone: nothing of it is left
in the way of URBs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from usbip_capture.access.rules import AccessRules
from usbip_capture.net.listening import Peer
from usbip_capture.relay.forwarding import Connection
from usbip_capture.relay.ruling import port_refusal, refusal
from usbip_capture.usb.info import InterfaceInfo
from usbip_capture.usb.urb import Buffer
from usbip_capture.wire.operations import MAX_DEVICES
from usbip_capture.wire.recognition import (
    imports_device,
    listed_device_length,
    listed_devices,
    operation_reply_length,
    operation_request_length,
)
from usbip_capture.wire.structs import (
    BUSID_SIZE,
    DEVICE,
    DEVLIST_COUNT,
    INTERFACE,
    OP_COMMON,
    OP_REP_IMPORT,
    OP_REQ_DEVLIST,
    OP_REQ_IMPORT,
    VERSION,
    OpStatus,
    unpack_device,
)

#: Bits of an OP code that are the same in a request and its reply.
_SAME_CODE = 0x7FFF
#: Bytes of a client that is refused, read and dropped: what is left unread when it is closed may cost it its answer.
_DROPPED = 64 << 10

#: Bytes of a list of devices that are kept: of some 3000 devices.
_MAX_LIST = 1 << 20

#: Bytes of the message at some place in these, as far as that many show it; 0 if it is not one.
_Length: TypeAlias = "Callable[[Buffer, int, int], int]"


class Gate:
    """Stands in both directions of a new `connection` of `peer`, on the thread that forwards.

    refuse: called with the peer and the reason when it is refused. soon: has something called on that thread.
    """

    def __init__(
        self,
        connection: Connection,
        rules: AccessRules,
        peer: Peer,
        refuse: Callable[[Peer, str], None],
        soon: Callable[[Callable[[], None]], None],
    ) -> None:
        self._connection = connection
        self._rules = rules
        self._peer = peer
        self._refuse = refuse
        self._soon = soon
        self._up, self._down = (end.outgoing for end in connection.ends)
        self._from_client, self._from_server = self._up.receive, self._down.receive
        self._up.receive, self._down.receive = self._request, self._reply
        self._version = VERSION  # the client's, once it has sent a request
        self._code = 0  # of the request whose reply is waited for
        self._asked, self._answer = bytearray(), bytearray()
        # Of a list: devices still to come, the one at hand, and how many the client sees
        self._left, self._entry, self._kept = 0, bytearray(), 0

    # -- in place of the two `receive`

    def _request(self, size: int) -> bytes:
        if self._code:
            raise BlockingIOError
        asked = self._asked
        if not self._fill(asked, self._from_client, operation_request_length):
            return b""
        self._version, code, _ = OP_COMMON.unpack_from(asked)
        if code == OP_REQ_IMPORT:
            busid = bytes(asked[-BUSID_SIZE:]).split(b"\0", 1)[0].decode("utf-8", "replace")
            self._check(port_refusal(self._rules, self._peer, busid))
        self._code = code
        self._hold(True)
        request = bytes(asked)
        asked.clear()
        return request

    def _reply(self, size: int) -> bytes:
        if not self._code:
            if self._from_server(1):
                self._cannot_decide()  # the reply to nothing
            return b""
        is_whole = (self._left or self._begin()) and self._list()
        reply = bytes(self._answer) if is_whole else b""
        self._answer.clear()
        self._code = 0
        self._hold(False)  # of a server that has ended its stream the client may still have an end to pass on
        self._soon(self._resume)
        return reply

    # -- what it takes

    def _begin(self) -> bool:
        """Read a reply, of a list what comes before its devices; False at the end of the stream."""
        answer = self._answer
        if not self._fill(answer, self._from_server, operation_reply_length):
            return False
        if OP_COMMON.unpack_from(answer)[1] != self._code & _SAME_CODE:
            self._cannot_decide()
        self._left, self._kept = listed_devices(answer, 0, len(answer)), 0
        if self._left > MAX_DEVICES:
            self._cannot_decide()
        if imports_device(answer, 0, len(answer)):
            self._check(refusal(self._rules, self._peer, unpack_device(answer[OP_COMMON.size :])))
            self._up.receive, self._down.receive = self._from_client, self._from_server
        return True

    def _list(self) -> bool:
        """Read the devices of a list, and keep those that the client may have; False at the end of the stream."""
        answer, entry = self._answer, self._entry
        while self._left:
            if not self._fill(entry, self._from_server, listed_device_length):
                return False
            interfaces = [InterfaceInfo(*codes) for codes in INTERFACE.iter_unpack(entry[DEVICE.size :])]
            if not refusal(self._rules, self._peer, unpack_device(entry[: DEVICE.size], interfaces)):
                answer += entry
                self._kept += 1
            if len(answer) > _MAX_LIST:
                self._cannot_decide()
            entry.clear()
            self._left -= 1
        if self._code == OP_REQ_DEVLIST and len(answer) > OP_COMMON.size:
            DEVLIST_COUNT.pack_into(answer, OP_COMMON.size, self._kept)
        return True

    def _fill(self, message: bytearray, receive: Callable[[int], bytes], length: _Length) -> bool:
        """Read until the message is whole, and nothing after it; False at the end of the stream.

        Raises BlockingIOError where more has to come, or where it is not a message and its client is refused for that.
        """
        while len(message) < (need := length(message, 0, len(message))):
            data = receive(need - len(message))
            if not data:
                return False
            message += data
        if not need:
            self._cannot_decide()
        return True

    def _check(self, reason: str, status: OpStatus = OpStatus.NODEV) -> None:
        """Where there is a reason, refuse the client for it. Raises BlockingIOError then: there is nothing to pass."""
        if reason:
            self._refuse(self._peer, reason)
            with suppress(OSError):
                self._from_client(_DROPPED)
            self._connection.turn_away(OP_COMMON.pack(self._version, OP_REP_IMPORT, status))
            raise BlockingIOError

    def _cannot_decide(self) -> None:
        self._check(refusal(self._rules, self._peer, None), OpStatus.NA)

    def _hold(self, held: bool) -> None:
        """Read no more from the client, or go on with that."""
        self._up.held = held
        self._connection.ends[0].watch()

    def _resume(self) -> None:
        """What the two transports have inside is reported by no descriptor."""
        for end in self._connection.ends:
            way = end.outgoing
            if not self._connection.over and not way.unsent and not way.eof_seen and way.pending():
                end.read()
