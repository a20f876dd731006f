"""What the words of a command line mean: HOST for --host, DEVICE for --device, and which device all of it chooses."""

from __future__ import annotations

import argparse

from usbip_capture.errors import LocalProtocolError

#: What busids, VID:PIDs and serial numbers have, and what is a device without.
_OF_A_DEVICE = "-:="
_SELECTIONS = ("all", "auto")


def settle(args: argparse.Namespace) -> None:
    """Make `args.server`, `args.device` and `args.request` of options and words alike. Raises LocalProtocolError."""
    if not hasattr(args, "server") or not hasattr(args, "host"):  # `pair` and `trust` have a server of their own
        return
    words = [word for word in (args.server, getattr(args, "device_word", None)) if word is not None]
    words += getattr(args, "request", None) or []
    if args.host is None:
        args.server = words.pop(0) if words else ""
    else:
        if words and not _looks_like_a_device(words[0]) and not hasattr(args, "request"):
            raise LocalProtocolError(f"the server is given twice: {words[0]!r} and --host {args.host}")
        args.server = args.host
    if hasattr(args, "device_word"):
        if words and (not hasattr(args, "request") or _looks_like_a_device(words[0])):
            word = words.pop(0)
            if args.device is not None:
                raise LocalProtocolError(f"the device is given twice: {word!r} and --device {args.device}")
            args.device = word
        args.device = args.device or ""
    if hasattr(args, "request"):
        args.request = words
    elif words:
        raise LocalProtocolError(f"{words[0]!r} is one argument too many")


def _looks_like_a_device(word: str) -> bool:
    return word in _SELECTIONS or (
        any(mark in word for mark in _OF_A_DEVICE) and (word[:1].isalnum() and not word.startswith("usbip://"))
    )
