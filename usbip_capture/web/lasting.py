"""What lasts longer than a moment, such as streams and WebSockets: it ends when who asked for it may not any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from usbip_capture.errors import UsbipError

#: Seconds between two looks at whether it may go on.
CHECK_EVERY = 5.0
#: Code of closing. Ref: RFC 6455, 7.4.1
_NOT_ALLOWED = 1008


async def parts_while_allowed(parts: AsyncIterable[Any], check: Callable[[], object]) -> AsyncIterator[Any]:
    """The parts of a response, until `check` raises UsbipError."""
    due = time.monotonic() + CHECK_EVERY
    try:
        async for part in parts:
            now = time.monotonic()
            if now >= due:
                check()
                due = now + CHECK_EVERY
            yield part
    except UsbipError:
        return
    finally:
        if isinstance(parts, AsyncGenerator):  # what it has is released now
            await parts.aclose()


async def serve_while_allowed(
    websocket: WebSocket, serving: Coroutine[Any, Any, None], check: Callable[[], object]
) -> None:
    """Run what serves a WebSocket, until it ends or `check` raises UsbipError."""
    task = asyncio.create_task(serving)
    try:
        while not (await asyncio.wait([task], timeout=CHECK_EVERY))[0]:
            check()
        task.result()
    except UsbipError:
        await _ended(task)
        with suppress(WebSocketDisconnect, RuntimeError):  # it has left meanwhile
            await websocket.close(_NOT_ALLOWED)
    finally:
        await _ended(task)


async def _ended(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
