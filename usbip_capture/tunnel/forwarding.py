"""One connection of a client through the tunnel: what either side sends goes to the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from usbip_capture.usb.urb import Buffer

#: Bytes that are received at once.
_SIZE = 256 << 10
#: Bytes of a request for a device, and of the answer that grants it: a server ends connections with any other answer.
#: Ref: Linux Documentation/usb/usbip_protocol.rst, OP_REQ_IMPORT and OP_REP_IMPORT
_REQUEST_SIZE, _ANSWER_SIZE = 40, 320
#: Seconds for the one side to end when the other has.
_LAST_PATIENCE = 30.0


class Stream(Protocol):
    """What is needed of a transport here."""

    def receive_into(self, buffer: memoryview, timeout: float | None) -> int: ...
    def send(self, parts: list[Buffer]) -> None: ...
    def end_sending(self) -> None: ...
    def shut_down(self) -> None: ...
    def reset_on_close(self) -> None: ...
    def close(self) -> None: ...


class Forwarding:
    """Forwards between `client` and `server`, which are its own. on_broken: called with why a connection has broken."""

    def __init__(self, client: Stream, server: Stream, on_broken: Callable[[OSError], None]) -> None:
        self._client = client
        self._server = server
        self._on_broken = on_broken
        self._ended = {True: threading.Event(), False: threading.Event()}  # by whether the client sends
        self._carried = {True: 0, False: 0}  # bytes
        self._broken = threading.Lock()  # taken by the first that finds it so

    @property
    def has_imported(self) -> bool:
        """Whether the client has a device, by how much has been sent."""
        return self._carried[True] >= _REQUEST_SIZE and self._carried[False] >= _ANSWER_SIZE

    def run(self) -> None:
        """Until both have ended, or one has broken: a broken connection breaks the other. Raises RuntimeError."""
        back = threading.Thread(target=self._pump, args=(False,), name="usbip-tunnel-back", daemon=True)
        back.start()
        self._pump(True)
        if not self._ended[False].wait(_LAST_PATIENCE):
            self.stop()
        back.join()
        for stream in (self._client, self._server):
            stream.close()

    def stop(self) -> None:
        """Break both connections; `run` returns. From any thread."""
        self._broken.acquire(blocking=False)
        self._break()

    def _break(self) -> None:
        for stream in (self._client, self._server):
            stream.reset_on_close()
            stream.shut_down()

    def _pump(self, from_client: bool) -> None:
        source, target = (self._client, self._server) if from_client else (self._server, self._client)
        buffer = memoryview(bytearray(_SIZE))
        try:
            while True:
                try:
                    size = source.receive_into(buffer, None)
                except TimeoutError:  # nothing in an hour
                    continue
                if not size:
                    break
                self._carried[from_client] += size
                target.send([buffer[:size]])
            if not self._broken.locked():  # or it is to see a reset, and no end
                with suppress(OSError):  # it has left already
                    target.end_sending()
        except OSError as error:
            if self._broken.acquire(blocking=False):
                self._on_broken(error)
            self._break()
        finally:
            self._ended[from_client].set()
            if not from_client and not self._ended[True].wait(_LAST_PATIENCE):
                self.stop()
