"""Figures for browsers, twice a second, over a WebSocket."""

from __future__ import annotations

import asyncio

from starlette.routing import BaseRoute
from starlette.websockets import WebSocket

from usbip_capture.web.live_figures import Listener
from usbip_capture.web.roles import LOOK
from usbip_capture.web.routing import live
from usbip_capture.web.side import WebSide

#: Seconds in which a browser has to take what is sent.
_TIMEOUT = 30.0


async def figures(websocket: WebSocket, side: WebSide) -> None:
    """First the history, then each sample, until the browser leaves or takes nothing any more."""
    await websocket.accept()
    listener = side.live.join()
    tasks = [
        asyncio.create_task(_left(websocket)),
        asyncio.create_task(_send(websocket, side.live.history(), listener)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        side.live.leave(listener)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send(websocket: WebSocket, history: str, listener: Listener) -> None:
    """Raises WebSocketDisconnect, RuntimeError, TimeoutError."""
    text = history
    while True:
        await asyncio.wait_for(websocket.send_text(text), _TIMEOUT)
        text = await listener.take()


async def _left(websocket: WebSocket) -> None:
    """Returns when the browser closes it; what it sends is not looked at."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


ROUTES: list[BaseRoute] = [live("/figures", figures, role=LOOK)]
