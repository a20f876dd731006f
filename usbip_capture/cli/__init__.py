"""`usbip-capture`: the library's work for people and scripts."""

from __future__ import annotations


def start() -> int:
    """The program: until it can end in order, Ctrl-C just ends it, without a traceback. Returns the exit code."""
    import signal

    # In the background of a script Ctrl-C is not meant for us, and Python has no handler of its own.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from usbip_capture.cli.main import main

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()
