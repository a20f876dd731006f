"""The server's side of pairings: a code is offered for some minutes, and who knows it is remembered."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from usbip_capture.errors import LocalProtocolError, RemoteProtocolError, UsbipError
from usbip_capture.net.listening import Peer
from usbip_capture.net.transport import Transport
from usbip_capture.system.shown import one_line
from usbip_capture.tls.certificates import check_client_certificate
from usbip_capture.tls.paired_clients import (
    PairedClient,
    add_paired_client,
    read_paired_clients,
    remove_paired_client,
)
from usbip_capture.tls.pairing import LIFETIME, Offer, Request, ServerSide, code_of
from usbip_capture.tls.pairing_client import LineReader
from usbip_capture.tls.server import ServerContext

log = logging.getLogger(__name__)

#: Seconds for a conversation, and how many there may be at a time.
_TIMEOUT, _AT_ONCE = 15.0, 4
_NO_OFFER = "no code is good there now: run `usbip-capture pair --offer` on that machine"
_WRONG = "the code is wrong, or somebody is in between: compare it, or have another one made"


class Pairing:
    """on_paired: called with the names of all who are paired, whenever they change. Threads may share it.

    Raises FileFormatError, UsbipError if those that were paired cannot be read.
    """

    def __init__(self, context: ServerContext, on_paired: Callable[[Sequence[str]], None]) -> None:
        self._context = context
        self._on_paired = on_paired
        self._offer: Offer | None = None
        self._lock = threading.Lock()
        self._talking = threading.BoundedSemaphore(_AT_ONCE)
        self._follow()

    @property
    def clients(self) -> list[PairedClient]:
        """Those that are paired, the first one first. Raises UsbipError."""
        return list(read_paired_clients().values())

    def offer(self) -> tuple[str, float]:
        """A new code, in place of an earlier one, and for how many seconds it is good."""
        code = code_of(os.urandom(8))
        with self._lock:
            self._offer = Offer(code, time.monotonic())
        return code, LIFETIME

    def remove(self, name: str) -> None:
        """Know a client no more. Its connections are for the caller to end. Raises LocalProtocolError, UsbipError."""
        with self._lock:
            remove_paired_client(name)
            self._follow()

    def converse(self, transport: Transport, peer: Peer) -> None:
        """With a client that wants to be paired. Raises OSError, RemoteProtocolError."""
        if not self._talking.acquire(blocking=False):
            transport.send([ServerSide.refusal("too many pair at the same time: try again")])
            return
        try:
            name = self._paired(transport)
        except UsbipError as error:
            log.warning("client %s was not paired: %s", peer, one_line(str(error)))
            with suppress(OSError):
                transport.send([ServerSide.refusal(str(error))])
        else:
            log.info("client %s is paired as %s", peer, name)
        finally:
            self._talking.release()

    def _paired(self, transport: Transport) -> str:
        side = ServerSide(self._context.own.certificate, os.urandom(32))
        transport.send([side.hello()])
        request = side.read(LineReader(transport).read(time.monotonic() + _TIMEOUT))
        self._check(side, request)
        client = PairedClient(request.name, request.certificate, int(time.time()))
        with self._lock:
            add_paired_client(client)
            self._follow()
        transport.send([side.answer()])
        return client.name

    def _check(self, side: ServerSide, request: Request) -> None:
        """Raises UsbipError."""
        with self._lock:  # one guess at a time
            offer = self._offer
            if offer is None or not offer.attempt(time.monotonic()):
                self._offer = None
                raise RemoteProtocolError(_NO_OFFER)
            if not side.is_right(request, offer.code):
                raise RemoteProtocolError(_WRONG)
            check_client_certificate(request.certificate)
            known = read_paired_clients().get(request.name)
            if known is not None and known.certificate != request.certificate:
                raise LocalProtocolError(f"another client is called {request.name}: choose a name with --name")
            self._offer = None  # it is good once

    def _follow(self) -> None:
        clients = read_paired_clients()
        self._context.set_paired({client.name: client.certificate for client in clients.values()})
        self._on_paired(list(clients))
