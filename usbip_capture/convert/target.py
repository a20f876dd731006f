"""The file that a conversion makes: what was there before is replaced by a whole capture, or stays as it was."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from usbip_capture.capture.sinks import Sink, StdoutSink, StreamSink, open_sink
from usbip_capture.errors import CaptureError

if TYPE_CHECKING:
    from usbip_capture.recordings.source import Source
    from usbip_capture.system.replacement import Replacement


class Target:
    """Where the output goes: to `sink`, then `keep`, or `discard` if there is nothing to keep or it failed.

    path: `-` is standard output. A file that exists stays as it is until `keep`, and is then replaced. A new file
    grows as it is written, so that it can be read meanwhile, and after a failure as far as it goes.
    Raises CaptureError if it cannot be written, or is what is read.
    """

    def __init__(self, path: str, source: Source, *, text: bool = False) -> None:
        if source.same_file(path):
            raise CaptureError(f"{shown_name(path)} is the input: name another file for the output")
        self._path = path
        self._replacement: Replacement | None = None
        self._new = path != "-" and not os.path.lexists(path)
        self.sink: Sink
        if path == "-":
            readable = text and sys.stdout.isatty()
            self.sink = StreamSink(sys.stdout.buffer, "standard output") if readable else StdoutSink()
        elif _is_file(path):
            from usbip_capture.system.replacement import Replacement  # a new file is made without

            try:
                self._replacement = Replacement(path)
            except OSError as error:
                raise CaptureError(f"{shown_name(path)} cannot be replaced: {error.strerror or error}") from error
            self.sink = StreamSink(self._replacement.file, path)
        else:
            self.sink = open_sink(path)

    def keep(self) -> None:
        """The output is what was written. Raises CaptureError if the end of it could not be."""
        self.sink.close()
        if self._replacement is not None:
            replacement, self._replacement = self._replacement, None
            try:
                replacement.commit()
            except OSError as error:
                reason = error.strerror or error
                raise CaptureError(f"{shown_name(self._path)} cannot be written: {reason}; it is as it was") from error

    def discard(self, *, failed: bool = False) -> None:
        """What was there before stays. A new file is removed, unless the conversion has failed after it had begun."""
        replacement, self._replacement = self._replacement, None
        if replacement is not None:
            replacement.discard()
        self.sink.close()
        if self._new and not failed and _is_file(self._path):
            os.unlink(self._path)


def shown_name(path: str) -> str:
    """The name of a file or stream, for people."""
    from usbip_capture.system.shown import one_line

    return "standard output" if path == "-" else one_line(path)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
