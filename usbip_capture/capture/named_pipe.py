"""A named pipe of Windows, as Wireshark makes it there: writing blocks, and is cancelled to end a capture.

Ref: Microsoft, Win32 API, CancelSynchronousIo, OpenThread
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Sequence

from usbip_capture.capture.sinks import SinkAborted, StreamSink
from usbip_capture.errors import CaptureError
from usbip_capture.usb.urb import Buffer

_THREAD_TERMINATE = 1  # the right that cancelling asks for


def cancel_blocked_write(thread: int) -> None:
    """Have the blocking call that the thread with this native id is in fail."""
    if sys.platform == "win32":
        import ctypes

        kernel32 = ctypes.windll.kernel32
        kernel32.OpenThread.restype = ctypes.c_void_p
        handle = ctypes.c_void_p(kernel32.OpenThread(_THREAD_TERMINATE, False, thread))
        if handle:
            kernel32.CancelSynchronousIo(handle)
            kernel32.CloseHandle(handle)


class NamedPipeSink(StreamSink):
    """The writing end. Raises OSError if it cannot be opened."""

    def __init__(self, path: str, cancel: Callable[[int], None] = cancel_blocked_write) -> None:
        self._raw = io.FileIO(path, "wb")
        super().__init__(self._raw, path)
        self._cancel = cancel
        self._writer = 0  # the thread that is writing

    def write(self, buffers: Sequence[Buffer]) -> None:
        self._writer = threading.get_native_id()
        try:
            super().write(buffers)
        except CaptureError as error:
            if self._aborted:
                raise SinkAborted(f"the reader of {self.name} has stopped reading") from error
            raise
        finally:
            self._writer = 0

    def abort(self) -> None:
        super().abort()
        if writer := self._writer:
            self._cancel(writer)

    def close(self) -> None:
        self._raw.close()

    forget = close
