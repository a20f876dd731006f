"""Exit codes of `usbip-capture`, the same for every command."""

from __future__ import annotations

import sys

from usbip_capture.errors import (
    DeviceError,
    DeviceNotFound,
    FileFormatError,
    ImportRefused,
    LocalProtocolError,
    NotRunning,
    ServerLost,
    ServerUnreachable,
    TransferTimeout,
    UntrustedServer,
    UsbipError,
)
from usbip_capture.system import console
from usbip_capture.wire.structs import OpStatus

#: Those that all our programs share have their numbers from `console`.
FAILED, USAGE, INTERRUPTED = console.FAILED, console.MISUSED, console.INTERRUPTED
DONE, SERVER, DEVICE, REFUSED, TRANSFER, TIMEOUT, NOT_RUNNING = 0, 3, 4, 5, 6, 7, 8

#: Code -> what it means, as the documentation has it.
MEANINGS = {
    DONE: "all is well",
    FAILED: "it failed in another way than below (the output cannot be written, a port cannot be listened on, the"
    " peer breaks the rules), or there is nothing to show",
    USAGE: "wrong arguments",
    SERVER: "no server there, or the connection was lost, or its certificate is not trusted",
    DEVICE: "no such device, or several match",
    REFUSED: "the device is in use by another client, or the server refuses to export it",
    TRANSFER: "the device refused a transfer (stall), or it failed in another way",
    TIMEOUT: "the device did not answer in time",
    NOT_RUNNING: "no server of yours runs here, for a command that speaks to one (`clients`, `kick`, ...)",
    INTERRUPTED: "ended by Ctrl-C before it was done (143: by SIGTERM, 129: as the terminal was closed); 0 for commands"
    " that run until then",
}
_OF_ERRORS: tuple[tuple[type[UsbipError], int], ...] = (
    (FileFormatError, FAILED),
    (LocalProtocolError, USAGE),
    (ServerUnreachable, SERVER),
    (ServerLost, SERVER),
    (UntrustedServer, SERVER),
    (DeviceNotFound, DEVICE),
    (ImportRefused, REFUSED),
    (TransferTimeout, TIMEOUT),
    (DeviceError, TRANSFER),
    (NotRunning, NOT_RUNNING),
)


def exit_code(error: Exception) -> int:
    """The code for an error that ends a command; one of no kind with a code has that of its cause."""
    if isinstance(error, ImportRefused) and error.status == OpStatus.NODEV:
        return DEVICE
    for kind, code in _OF_ERRORS:
        if isinstance(error, kind):
            return code
    cause = error.__cause__
    return exit_code(cause) if type(error) is UsbipError and isinstance(cause, UsbipError) else FAILED


def is_reported(error: BaseException) -> bool:
    """True if it is reported as one sentence; anything else is handled by `console.run`, or is a bug."""
    return isinstance(error, UsbipError)


def sentence(error: Exception) -> str:
    """What a person reads of it."""
    text = str(error)
    # Not imported for the question, as PyUSB is not: who has no filter cannot have a wrong one.
    language = sys.modules.get("usbip_capture.filters.language")
    wrong_filter = language is not None and isinstance(error, language.FilterError)
    return f"--filter: {text}" if wrong_filter else text


def table() -> str:
    """The codes as a Markdown table, for the documentation."""
    rows = ["| exit code | meaning |", "| --- | --- |", *(f"| {code} | {text} |" for code, text in MEANINGS.items())]
    return "\n".join(rows) + "\n"
