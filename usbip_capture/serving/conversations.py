"""Conversations with strangers who have proved nothing yet: a few at a time, and none keeps others out."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from usbip_capture.access.limits import key_of
from usbip_capture.net.listening import Peer
from usbip_capture.net.transport import Transport
from usbip_capture.tls.pairing import BUSY, ServerSide

#: At a time.
AT_ONCE = 4


class Conversations:
    """Where one is too many, the oldest one of the address that has most of them is ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._going_on: dict[Transport, str] = {}  # -> address as it is counted, the oldest first

    @contextmanager
    def begun(self, transport: Transport, peer: Peer) -> Iterator[None]:
        """For as long as one goes on. Another one may end it by `transport.shut_down`."""
        self._make_room(transport, key_of(peer.host))
        try:
            yield
        finally:
            with self._lock:
                self._going_on.pop(transport, None)

    def _make_room(self, transport: Transport, address: str) -> None:
        given_up = None
        with self._lock:
            self._going_on[transport] = address
            if len(self._going_on) > AT_ONCE:
                most = Counter(self._going_on.values()).most_common(1)[0][0]
                given_up = next(one for one, other in self._going_on.items() if other == most)
                del self._going_on[given_up]
        if given_up is not None:
            with suppress(OSError):
                given_up.send_now([ServerSide.refusal(BUSY)])
            given_up.shut_down()
