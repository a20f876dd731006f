"""What goes on after the answer has begun ends when who asked for it may have it no more: streams and WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from usbip_capture.errors import UsbipError

T = TypeVar("T")

#: Seconds between two looks.
RECHECK = 2.0


async def parts_while_allowed(parts: AsyncIterable[T], check: Callable[[], object]) -> AsyncGenerator[T, None]:
    """These, for as long as `check` does not raise UsbipError; it runs on the event loop, also while nothing comes."""
    loop = asyncio.get_running_loop()
    checked = loop.time()
    iterator = aiter(parts)
    coming: asyncio.Future[T] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(iterator))
            while not coming.done():
                await asyncio.wait({coming}, timeout=RECHECK)
                if loop.time() - checked >= RECHECK:
                    checked = loop.time()
                    check()
            yield coming.result()
    except (UsbipError, StopAsyncIteration):
        return
    finally:
        await _ended(coming)
        if isinstance(parts, AsyncGenerator):
            await parts.aclose()


async def done_while_allowed(serving: Awaitable[None], check: Callable[[], object]) -> UsbipError | None:
    """Await it, and raise what it raises; cancel it, and return why, when `check` raises UsbipError."""
    task = asyncio.ensure_future(serving)
    try:
        while not (await asyncio.wait({task}, timeout=RECHECK))[0]:
            try:
                check()
            except UsbipError as error:
                return error
        task.result()
        return None
    finally:
        await _ended(task)


async def _ended(task: asyncio.Future[T] | None) -> None:
    """It is cancelled if it goes on, and has ended then."""
    if task is not None and not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
