"""A Wireshark that shows a capture from a pipe."""

from __future__ import annotations

import subprocess
import sys
from typing import IO, cast

from usbip_capture.capture.sinks import StreamSink
from usbip_capture.errors import CaptureError
from usbip_capture.installation import profile, wiresharks


def start_wireshark() -> WiresharkSink:
    """Start it, capturing from a pipe. Raises CaptureError."""
    if not wiresharks.has_display():
        raise CaptureError("there is no display to open Wireshark's window on: capture into a file with -o")
    found = next((each for each in wiresharks.installations() if "wireshark" in each.programs), None)
    if found is None:
        raise CaptureError("no program wireshark is in PATH or in the usual places: install Wireshark")
    program = found.programs["wireshark"]
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
    try:
        # A session of its own: our Ctrl-C ends the capture, and leaves Wireshark with what it has.
        process = subprocess.Popen(
            [program, *profile.arguments(found.configuration), "-k", "-i", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            creationflags=flags,
        )
    except OSError as error:
        raise CaptureError(f"{program} cannot be started: {error.strerror}; install Wireshark anew") from error
    return WiresharkSink(process)


class WiresharkSink(StreamSink):
    """The pipe to a Wireshark, which outlives us."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._stdin = cast(IO[bytes], process.stdin)
        super().__init__(self._stdin, "Wireshark")  # type: ignore[arg-type]

    def close(self) -> None:
        try:
            self._stdin.close()
        except OSError:  # it has been closed
            pass
        self._process.returncode = 0  # it is on its own now, and no child that is forgotten
