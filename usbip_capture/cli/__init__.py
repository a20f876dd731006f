"""`usbip-capture`: the library's work for people and scripts."""

from __future__ import annotations


def start() -> int:
    """The program: until it can end in order, Ctrl-C just ends it, without a traceback. Returns the exit code."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from usbip_capture.cli.main import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()
