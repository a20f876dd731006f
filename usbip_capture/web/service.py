"""Runs the web side: uvicorn, on a thread of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence

import uvicorn
from starlette.applications import Starlette

from usbip_capture.errors import CannotListen
from usbip_capture.net import listening

_STOP_TIMEOUT = 5.0


class WebService:
    """Serves `app` at `places` until `close`. Raises CannotListen."""

    def __init__(self, app: Starlette, places: Sequence[tuple[str, int]]) -> None:
        self.addresses: list[tuple[str, int]] = []
        self._sockets: list[socket.socket] = []
        try:
            for place in places:
                listener = listening.listen(*place)
                self._sockets.append(listener)
                self.addresses.append(listener.getsockname()[:2])
        except BaseException:
            self._close_sockets()
            raise
        config = uvicorn.Config(
            app, ws="wsproto", lifespan="off", log_config=None, access_log=False, server_header=False,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": self._sockets}, name="usbip-web", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:
            self._close_sockets()
            raise CannotListen(f"the dashboard cannot be served: {error}: end other programs") from error

    def close(self) -> None:
        """End all requests; bounded in time. May be called again."""
        self._server.should_exit = True
        self._thread.join(_STOP_TIMEOUT)
        self._close_sockets()

    def _close_sockets(self) -> None:
        for listener in self._sockets:
            listener.close()
