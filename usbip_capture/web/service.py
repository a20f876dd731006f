"""Runs the web side: uvicorn, on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Sequence

import uvicorn
from starlette.applications import Starlette

from usbip_capture.errors import CannotListen, UsbipError
from usbip_capture.net import listening
from usbip_capture.net.address import format_address
from usbip_capture.web.http_protocol import BoundedProtocol
from usbip_capture.web.stalled import Stalled

log = logging.getLogger(__name__)

_STOP_TIMEOUT = 5.0
#: Bytes of the head of a request, and of a message of a WebSocket.
_MAX_HEAD, _MAX_MESSAGE = 32 << 10, 64 << 10
#: Tenths of a second between two looks at who takes nothing any more.
_LOOK = 50
#: Bytes that the system keeps for who does not read: figures that wait there for minutes are of no use.
_MAX_UNSENT = 32 << 10
#: Whom uvicorn reports to; what strangers send is not worth a line there.
_LOGGER = "uvicorn.error"


class _Server(uvicorn.Server):
    """Keeps nobody who takes nothing, neither while it runs nor at its end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stalled = Stalled()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if counter % _LOOK == 0:
            self._stalled.look(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Of those that are left when the time for it is up, descriptors would be left, too."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


class WebService:
    """Serves `app` at `places` until `close`. Raises CannotListen, UsbipError.

    identity: a file with key and certificate in PEM, for TLS; empty without. addresses: where it listens.
    """

    def __init__(self, app: Starlette, places: Sequence[tuple[str, int]], identity: str = "") -> None:
        self.addresses: list[tuple[str, int]] = []
        self.is_secure = bool(identity)
        self._sockets: list[socket.socket] = []
        try:
            for place in places:
                listener = listening.listen(*place, "the dashboard", dual_stack=True)
                self._sockets.append(listener)
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # of those that are accepted, too
                    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT)
                self.addresses.append(listener.getsockname()[:2])
            self._server = _Server(_configuration(app, identity))
            self._thread = threading.Thread(target=self._run, name="usbip-web", daemon=True)
            self._thread.start()
        except RuntimeError as error:
            self._close_sockets()
            raise CannotListen(f"the dashboard cannot be served: {error}: end other programs") from error
        except BaseException:
            self._close_sockets()
            raise

    @property
    def urls(self) -> list[str]:
        """Where a browser of this machine finds it."""
        scheme = "https" if self.is_secure else "http"
        return [f"{scheme}://{_reachable(host, port)}/" for host, port in self.addresses]

    def close(self) -> None:
        """End all requests; bounded in time. May be called again."""
        self._server.should_exit = True
        self._thread.join(_STOP_TIMEOUT)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(_STOP_TIMEOUT)
        self._close_sockets()

    def _run(self) -> None:
        try:
            self._server.run(sockets=self._sockets)
        except Exception:
            log.exception("the dashboard has ended")

    def _close_sockets(self) -> None:
        for listener in self._sockets:
            listener.close()


def _configuration(app: Starlette, identity: str) -> uvicorn.Config:
    """Raises UsbipError.

    What is compressed is not bounded by its length, and would be compressed for each browser again.
    """
    logging.getLogger(_LOGGER).setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app, http=BoundedProtocol, ws="wsproto", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=1, h11_max_incomplete_event_size=_MAX_HEAD,
        ws_max_size=_MAX_MESSAGE, ws_per_message_deflate=False, ssl_certfile=identity or None,
    )  # fmt: skip
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise UsbipError(f"the certificate {identity} cannot be used: {error.strerror or error}") from error
    return config


def _reachable(host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(host, host)
    text = format_address(host, port)
    return text if ":" in text.rpartition("]")[2] else f"{text}:{port}"
