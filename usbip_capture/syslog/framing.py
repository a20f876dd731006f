"""Frames of a syslog stream: octet counting or a delimiter, whichever each frame uses.

A frame that begins with a count, a space and a priority is counted; any other one ends with LF or NUL. ESP32 bridges
do both at once: the count covers an LF at the end, and line breaks within the message end nothing. A count is believed
when what follows it can begin a frame; else the frame ends where the next one begins.

Ref: RFC 6587, 3.4; RFC 5425, 4.3
"""

from __future__ import annotations

import re
from typing import TypeAlias

#: A frame and what was wrong with it, empty if nothing was.
Frame: TypeAlias = "tuple[bytes, str]"
# Where a frame begins and ends and where what comes next begins, -1 if more is needed; what is wrong.
_Found: TypeAlias = "tuple[int, int, int, str]"

#: Longer messages are cut: one must fit a pcapng block, and RFC 5424 asks for no more than 2048.
MAX_LENGTH = 64 << 10
#: Larger counts are not believed.
MAX_COUNT = 16 << 20

TOO_LONG = "too long, its end is left out"
WRONG_COUNT = "its octet count is wrong"
INCOMPLETE = "incomplete, the connection ended within it"

_COUNTED = re.compile(rb"([1-9][0-9]{0,19}) (?=<[0-9]{1,3}>)")
#: A delimiter before a counted frame, and a counted frame anywhere.
_RESTART = re.compile(rb"[\n\0](?=[1-9][0-9]{0,7} <[0-9]{1,3}>)")
_NEXT = re.compile(rb"(?=[1-9][0-9]{0,7} <[0-9]{1,3}>)")
#: The same, and a frame without a count that has a priority; and the lines of text that has none.
_PRIORITY_LINE = re.compile(rb"[\n\0](?=(?:[1-9][0-9]{0,7} )?<[0-9]{1,3}>)")
_LINES = re.compile(rb"[\n\0]+")
_DELIMITER = re.compile(rb"[\n\0]")
#: No longer than this is what _RESTART and _NEXT look for.
_OVERLAP = 16
_BEGINNINGS = b"<\r\n\x000123456789"
_ENDS = b"\n\0"
#: What does not belong to a message, before or after it.
_AROUND = b"\r\n\0"


def datagram_frames(data: bytes) -> list[Frame]:
    """The one frame of a datagram; some senders add a count or an end all the same.

    Text without a priority, as ESP32s send the lines that they print, is as many frames as it has lines.

    Ref: RFC 5426, 3.1
    """
    counted = _COUNTED.match(data)
    start = 0 if counted is None else counted.end()
    frame = data[start:].strip(_AROUND)
    if not frame:
        return []
    if not frame.startswith((b"<", b"\xef\xbb\xbf<")):
        return [(line, "") for part in _LINES.split(frame) if (line := part.strip(_AROUND))]
    wrong = counted is not None and not len(frame) <= int(counted[1]) <= len(data) - start
    return [(frame, WRONG_COUNT if wrong else "")]


class Framer:
    """One stream. Holds at most about `max_length` bytes beside what is fed.

    frames: how many were given out. too_long, wrong_counts, incomplete: those with such a flaw.
    discarded: bytes of frames that were too long.
    """

    def __init__(self, max_length: int = MAX_LENGTH) -> None:
        self.frames = self.too_long = self.wrong_counts = self.incomplete = self.discarded = 0
        self._max_length = max_length
        self._buffer = b""
        self._searched = 0  # so many bytes of the frame that has begun hold no end
        self._has_nul = False
        self._skip = 0  # octets of a counted frame that are still to be left out
        self._discarding = False  # leaving out all until a delimiter

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, without their count and delimiter."""
        if self._skip or self._discarding:
            data = self._leave_out(data)
        buffer = self._buffer + data if self._buffer else data
        self._has_nul = b"\0" in buffer
        found: list[Frame] = []
        at, end = 0, len(buffer)
        while at < end:
            start, stop, after, flaw = self._next(buffer, at, end)
            if after < 0:
                break
            at, self._searched = after, 0
            frame = buffer[start:stop].strip(_AROUND)
            if frame:
                found.append((frame, flaw))
                if flaw:
                    self.too_long += flaw is TOO_LONG
                    self.wrong_counts += flaw is WRONG_COUNT
        self._buffer = buffer[at:]
        self.frames += len(found)
        return found

    def end(self) -> list[Frame]:
        """What is left of the stream when it has ended."""
        buffer, self._buffer, self._searched = self._buffer, b"", 0
        found: list[Frame] = []
        # Of a counted frame that never came to its end, the count may have been wrong, and lines follow.
        while (counted := _COUNTED.match(buffer)) and (restart := _PRIORITY_LINE.search(buffer, counted.end())):
            found.append((buffer[counted.end() : restart.start()].strip(_AROUND), WRONG_COUNT))
            self.frames += 1
            self.wrong_counts += 1
            found += self.feed(buffer[restart.end() :])
            buffer, self._buffer, self._searched = self._buffer, b"", 0
        frame = buffer[counted.end() if counted else 0 :].strip(_AROUND)
        if frame:
            self.frames += 1
            self.incomplete += 1
            found.append((frame, INCOMPLETE))
        return found

    def _next(self, buffer: bytes, at: int, end: int) -> _Found:
        counted = _COUNTED.match(buffer, at)
        if counted is None:
            return self._line(buffer, at, at, end, "")
        start = counted.end()
        count = int(counted[1])
        stop = start + count
        if count > MAX_COUNT:
            return self._line(buffer, at, start, end, WRONG_COUNT)
        if stop > end or count > self._max_length:
            return self._unfinished(buffer, at, start, stop, end)
        # Most frames, recognized quickly: an LF at the end, or one that can follow and none shortly before.
        if buffer[stop - 1] in _ENDS:
            return start, stop, stop, ""
        follows = stop == end or buffer[stop] in _BEGINNINGS
        if follows and buffer.rfind(b"\n", max(start, stop - _OVERLAP), stop) < 0:
            return start, stop, stop, ""
        return self._doubtful(buffer, at, start, stop, end, follows)

    def _line(self, buffer: bytes, at: int, start: int, end: int, flaw: str) -> _Found:
        """A frame up to a delimiter."""
        search_from = max(start, at + self._searched)
        if self._has_nul:
            delimiter = _DELIMITER.search(buffer, search_from)
            stop = -1 if delimiter is None else delimiter.start()
        else:
            stop = buffer.find(b"\n", search_from)
        most = start + self._max_length
        if 0 <= stop <= most:
            return start, stop, stop + 1, flaw
        if stop < 0 and end <= most:
            self._searched = end - at
            return start, -1, -1, ""
        self._discarding = stop < 0
        self.discarded += (end if stop < 0 else stop) - most
        return start, most, end if stop < 0 else stop + 1, TOO_LONG

    def _unfinished(self, buffer: bytes, at: int, start: int, stop: int, end: int) -> _Found:
        """A counted frame of which not all is there, or that is too long."""
        restart = _RESTART.search(buffer, max(start, at + self._searched - _OVERLAP), min(end, stop + _OVERLAP))
        if restart is not None and restart.start() < stop - 1:
            return start, restart.start(), restart.end(), WRONG_COUNT
        most = start + self._max_length
        if stop <= most or end < most:
            self._searched = end - at
            return start, -1, -1, ""
        after = min(stop, end)
        self.discarded += after - most
        self._skip = stop - after
        return start, most, after, TOO_LONG

    def _doubtful(self, buffer: bytes, at: int, start: int, stop: int, end: int, follows: bool) -> _Found:
        """A counted frame that may have begun another one, or (not `follows`) after which nothing can begin."""
        restart = _RESTART.search(buffer, max(start, stop - _OVERLAP) if follows else start, stop + _OVERLAP)
        if restart is not None and restart.start() < stop:
            return start, restart.start(), restart.end(), WRONG_COUNT
        if follows:
            return start, stop, stop, ""
        begin = _NEXT.search(buffer, max(stop, at + self._searched - _OVERLAP), end)
        delimited = self._line(buffer, at, start, end if begin is None else begin.start(), WRONG_COUNT)
        if begin is None or 0 <= delimited[1] < begin.start():
            return delimited
        self._discarding = False
        return start, begin.start(), begin.start(), WRONG_COUNT

    def _leave_out(self, data: bytes) -> bytes:
        """What of `data` does not belong to a frame that was too long."""
        if self._skip:
            # The count may have been wrong: then the next frame after a delimiter shows it.
            restart = _RESTART.search(data, 0, self._skip)
            stop = after = min(self._skip, len(data)) if restart is None else restart.end()
            self._skip = self._skip - stop if restart is None else 0
        else:
            delimiter = _DELIMITER.search(data)
            stop, after = (len(data), len(data)) if delimiter is None else delimiter.span()
            self._discarding = delimiter is None
        self.discarded += stop
        return data[after:]
