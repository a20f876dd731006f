"""Captures that other programs have packed: named, so that one knows what to do. gzip is read as it is."""

from __future__ import annotations

# By how they begin.
_PACKED = {
    b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4", b"BZh": "bzip2", b"\xfd7zX": "xz", b"PK\x03\x04": "zip",
}  # fmt: skip


def packed_with(name: str, first: bytes) -> str | None:
    """What to report of the capture `name`, which begins with `first`; None if it is not packed, or with gzip."""
    for magic, program in _PACKED.items():
        if first.startswith(magic):
            return f"{name} is packed with {program}: unpack it first (gzip is read as it is)"
    return None
