"""String descriptors.

Ref: USB 2.0 specification, 9.6.7
"""

from __future__ import annotations

from usbip_capture.usb.setup import DT_STRING
from usbip_capture.usb.urb import Buffer


def parse_langids(raw: Buffer) -> list[int]:
    """The languages that string 0 lists; none if it is malformed."""
    body = _body(raw)
    return [body[at] | body[at + 1] << 8 for at in range(0, len(body) - 1, 2)]


def parse_string(raw: Buffer) -> str:
    """A string; what is not UTF-16 is replaced, trailing NULs go; empty if it is malformed."""
    return _body(raw).decode("utf-16-le", "replace").rstrip("\0")


def pack_string(text: str) -> bytes:
    """A string descriptor; text beyond the 126 UTF-16 units that fit is cut."""
    body = text.encode("utf-16-le", "replace")[:252]
    return bytes([2 + len(body), DT_STRING]) + body


def _body(raw: Buffer) -> bytes:
    data = bytes(raw)
    if len(data) < 2 or data[1] != DT_STRING:
        return b""
    return data[2 : data[0]]
