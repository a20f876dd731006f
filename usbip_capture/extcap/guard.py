"""What holds around a capture whatever happens in it: no pipe stays unopened, and one sentence on standard error.

Wireshark's window blocks for good on a control pipe that the extcap never opens, and Wireshark 4.0 waits for ever for
an extcap that ends without opening its fifo. So the control pipe is opened before anything is imported that can fail,
and the fifo is opened on every way out.
"""

from __future__ import annotations

import os
import sys
import time

from usbip_capture.extcap.grammar import value_of

#: Set to see tracebacks and warnings on standard error, for work on this program.
TRACEBACK_VARIABLE = "USBIP_CAPTURE_TRACEBACK"
#: Wireshark shows the first 1024 bytes of standard error.
_SENTENCE_BYTES = 1000
#: Seconds that Wireshark has to open its end of the control pipe.
_CONTROL_TIMEOUT = 5.0


def capture(argv: list[str]) -> int:
    """Run the capture process and end it. Does not return: threads may still wait for a server that is silent."""
    closed = _open_standard_streams()
    control = ControlPipe(value_of(argv, "--extcap-control-in"))
    stderr = _silence()
    wait, failed = True, 1
    try:
        if 1 in closed and value_of(argv, "--fifo") == "-":
            sentence = "standard output is closed: leave it open, or give --fifo a file"
        else:
            enable_site_packages()
            from usbip_capture.extcap.capture import CaptureProcess

            process = CaptureProcess(argv, control.fd)
            sentence = process.run()
            wait = not process.stopped
            failed = 2 if process.misused else 1
    except KeyboardInterrupt:
        sentence, wait = "", False
    except BaseException as error:  # noqa: BLE001  whatever it is, the pipe is opened
        _show_traceback()
        open_fifo(value_of(argv, "--fifo"))
        sentence = f"the capture cannot start: {type(error).__name__}: {error}; run install.py again"
    if sentence:
        from usbip_capture.system.shown import one_line

        os.write(stderr, (one_line(" ".join(sentence.split()))[:_SENTENCE_BYTES] + "\n").encode("utf-8", "replace"))
    if wait:
        control.wait_for_writer(_CONTROL_TIMEOUT)
    # Not sys.exit: a daemon thread that runs on while Python shuts down can crash it.
    os._exit(failed if sentence else 0)


class ControlPipe:
    """Our end of the toolbar's pipe, held open as long as the capture lives."""

    def __init__(self, path: str | None) -> None:
        self.fd: int | None = None
        if path:
            try:
                self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            except OSError:  # it is not there: then nobody waits for us either
                pass

    def wait_for_writer(self, timeout: float) -> None:
        """Wait until Wireshark has opened its end, at most `timeout` seconds: its window hangs if we leave earlier."""
        if self.fd is None or os.name == "nt":
            return
        import signal

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # there is nothing left to be done in order
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                if os.read(self.fd, 1):
                    return
            except OSError:  # EAGAIN: a writer is there and has sent nothing
                return
            time.sleep(0.02)


def _open_standard_streams() -> list[int]:
    """Which of descriptors 0 to 2 were closed; they lead nowhere now, so that no file of ours gets their numbers."""
    closed = []
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(os.open(os.devnull, os.O_RDWR))
    return closed


def open_fifo(path: str | None) -> None:
    """Open and close the data pipe, for whoever waits for it; anything else is left alone."""
    if not path or path == "-":
        return
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError:
        pass


def enable_site_packages() -> None:
    """Make installed packages importable where Python was started with -I -S, for the speed of queries."""
    if sys.flags.no_site:
        import site

        site.main()
        # Where we are may not be a site folder of this Python, yet hold our dependencies (pip --user, pip --target).
        site.addsitedir(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def _silence() -> int:
    """Send standard error nowhere, also for C libraries; what it was, for the one sentence.

    Each byte there becomes an error box in Wireshark, also after a good capture.
    """
    stderr = os.dup(2)
    if not os.environ.get(TRACEBACK_VARIABLE):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
    return stderr


def _show_traceback() -> None:
    if os.environ.get(TRACEBACK_VARIABLE):
        import traceback

        traceback.print_exc()
