"""Errors by names, so that who asks gets an error of the kind that the server had."""

from __future__ import annotations

from usbip_capture.errors import (
    CaptureError,
    DeviceNotFound,
    FileFormatError,
    LocalProtocolError,
    RemoteProtocolError,
    UsbipError,
)

_KINDS: dict[str, type[UsbipError]] = {
    "device": DeviceNotFound,
    "file": FileFormatError,  # before what it is, too
    "arguments": LocalProtocolError,
    "protocol": RemoteProtocolError,
    "capture": CaptureError,
}


def kind_of(error: UsbipError) -> str:
    """What it is called, empty for one without a name."""
    return next((name for name, kind in _KINDS.items() if isinstance(error, kind)), "")


def error_of(kind: str, sentence: str) -> UsbipError:
    """The error that is called so."""
    return _KINDS.get(kind, UsbipError)(sentence)
