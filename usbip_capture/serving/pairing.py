"""The server's side of pairings: a code is offered for some minutes, and who knows it is remembered."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from usbip_capture.errors import UsbipError
from usbip_capture.net.listening import Peer
from usbip_capture.net.transport import Transport, send_by
from usbip_capture.server.events import PAIRED, REFUSED, UNPAIRED, Events
from usbip_capture.serving.conversations import Conversations
from usbip_capture.serving.following import Trouble
from usbip_capture.syslog.severity import NOTICE, WARNING
from usbip_capture.tls.certificates import check_client_certificate, fingerprint
from usbip_capture.tls.paired_clients import (
    PairedClient,
    change_paired_clients,
    read_paired_clients,
    remove_paired_client,
    with_client,
)
from usbip_capture.tls.pairing import (
    FAILED,
    LIFETIME,
    NAME_FIXED,
    NO_OFFER,
    NOT_ACCEPTED,
    WRONG_CODE,
    Offer,
    PairingFailed,
    Request,
    ServerSide,
    check_name,
    code_of,
)
from usbip_capture.tls.pairing_client import LineReader
from usbip_capture.tls.server import ServerContext

log = logging.getLogger(__name__)

#: Seconds for a conversation.
_TIMEOUT = 15.0


class Pairing:
    """events: where it is reported. on_paired: called with the names of all who are paired, whenever they change.

    Threads may share it. Raises FileFormatError, UsbipError if those that were paired cannot be read.
    """

    def __init__(
        self,
        context: ServerContext,
        events: Events,
        on_paired: Callable[[Sequence[str]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._events = events
        self._on_paired = on_paired
        self._clock = clock
        self._offer: Offer | None = None
        self._lock = threading.Lock()
        self._conversations = Conversations()
        self._trouble = Trouble(log)
        self._clients: dict[str, PairedClient] = {}
        self._in_context: dict[str, PairedClient] | None = {}  # None: no context could be made for those
        self._know(read_paired_clients())

    @property
    def clients(self) -> list[PairedClient]:
        """Those that are paired, the first one first."""
        return list(self._clients.values())

    def offer(self, name: str = "") -> tuple[str, float]:
        """A new code, in place of an earlier one, and for how many seconds it is good.

        name: the only one that a client may have for it; empty: that which the client chooses. Raises
        LocalProtocolError.
        """
        if name:
            check_name(name)
        code = code_of(os.urandom(8))
        with self._lock:
            self._offer = Offer(code, self._clock(), name)
        return code, LIFETIME

    def remove(self, name: str) -> None:
        """Know a client no more, which ends its connections. Raises LocalProtocolError, UsbipError."""
        with self._lock:
            try:
                removed = remove_paired_client(name)
            except UsbipError:
                self._read()  # another server may have removed it
                raise
            self._keep_only({other: one for other, one in self._clients.items() if other != name})
            self._read()
        self._events.emit(UNPAIRED, NOTICE, text=f"{name}, {removed.fingerprint}", by="user")

    def follow(self) -> bool:
        """The file has changed, perhaps. False if it cannot be read, or followed as a whole, which is logged.

        Who was paired before still is, but for those that the file is read not to have any more.
        """
        with self._lock:
            return self._read()

    def converse(self, transport: Transport, peer: Peer) -> None:
        """With a client that wants to be paired, in bounded time. Raises OSError."""
        deadline = time.monotonic() + _TIMEOUT
        with self._conversations.begun(transport, peer):
            try:
                name, answer = self._paired(transport, peer, deadline)
            except UsbipError as error:
                self._events.emit(REFUSED, WARNING, peer=peer, text=f"pairing: {error}", by="server")
                log.warning("client %s was not paired: %s", peer, error)
                reason = error.reason if isinstance(error, PairingFailed) else FAILED
                with suppress(OSError):
                    send_by(transport, ServerSide.refusal(reason), deadline)
                return
            log.info("client %s is paired as %s", peer, name)
            send_by(transport, answer, deadline)

    def _paired(self, transport: Transport, peer: Peer, deadline: float) -> tuple[str, bytes]:
        """The client's name, and what it gets when it is known here. Raises OSError, UsbipError."""
        with self._lock:
            if self._offer is None or not self._offer.is_good(self._clock()):
                raise PairingFailed.of(NO_OFFER)  # nobody waits here without one
        side = ServerSide(self._context.own.certificate, os.urandom(32))
        send_by(transport, side.hello(), deadline)
        request = side.read(LineReader(transport).read(deadline))
        with self._lock:  # one guess at a time
            self._check(side, request)
            self._add(PairedClient(request.name, request.certificate, int(time.time())))
        by = peer._replace(identity=f"paired:{request.name}")
        self._events.emit(PAIRED, NOTICE, peer=by, text=fingerprint(request.certificate), by="client")
        return request.name, side.answer()

    def _check(self, side: ServerSide, request: Request) -> None:
        """Raises PairingFailed."""
        offer = self._offer
        if offer is None or not offer.attempt(self._clock()):
            self._offer = None
            raise PairingFailed.of(NO_OFFER)
        if not side.is_right(request, offer.code):
            raise PairingFailed.of(WRONG_CODE)
        if offer.name not in ("", request.name):
            raise PairingFailed.of(NAME_FIXED)
        self._offer = None  # it is good once

    def _add(self, client: PairedClient) -> None:
        """From now on; before the client learns of it, so that it can connect at once. Raises UsbipError."""
        try:
            check_client_certificate(client.certificate)
        except UsbipError as error:
            raise PairingFailed(str(error), NOT_ACCEPTED) from error

        def added(clients: dict[str, PairedClient]) -> dict[str, PairedClient]:
            made = with_client(clients, client)
            try:
                self._set_context(made)
            except UsbipError as error:  # it is not kept either: no server would start with it
                raise PairingFailed(str(error), NOT_ACCEPTED) from error
            return made

        try:
            clients = change_paired_clients(added)
        except UsbipError:
            with suppress(UsbipError):  # at least this one is known no more then
                self._set_context(self._clients)
            raise
        self._keep_only(clients)
        self._have(clients)

    def _read(self) -> bool:
        """Whether what the file has is known here now; if not, that is logged. The lock is held."""
        try:
            self._know(read_paired_clients())
        except UsbipError as error:
            self._trouble.log(f"{error}; who was paired before still is, unless it was removed")
            return False
        self._trouble.over()
        return True

    def _know(self, clients: dict[str, PairedClient]) -> None:
        """Raises UsbipError; who was known before still is then, but nobody who is not among these."""
        self._keep_only(clients)
        if clients != self._in_context:
            self._set_context(clients)
        if clients != self._clients:
            self._have(clients)

    def _keep_only(self, clients: dict[str, PairedClient]) -> None:
        """Those that are among these with the same certificate; before all that can fail."""
        kept = {name: one for name, one in self._clients.items() if _is_same(one, clients.get(name))}
        if kept != self._clients:
            self._have(kept)

    def _set_context(self, clients: dict[str, PairedClient]) -> None:
        """Raises UsbipError; then it is the one that was before, without those that are not among these."""
        self._in_context = None
        self._context.set_paired({client.name: client.certificate for client in clients.values()})
        self._in_context = clients

    def _have(self, clients: dict[str, PairedClient]) -> None:
        self._clients = clients
        self._on_paired(list(clients))


def _is_same(client: PairedClient, other: PairedClient | None) -> bool:
    return other is not None and other.certificate == client.certificate
