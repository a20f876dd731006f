"""Numbers that a host chooses anew each time, and an answer repeats: what is asked and answered without them.

Ref: USB Mass Storage Class, Bulk-Only Transport 1.0, tables 5.1 and 5.2; USBTMC 1.0, table 1
"""

from __future__ import annotations

_CBW, _CSW = b"USBC", b"USBS"
_CBW_SIZE, _CSW_SIZE, _TMC_HEADER = 31, 13, 12
_MSG_IDS = frozenset((1, 2, 126, 127))


def is_cbw(data: bytes) -> bool:
    """Whether it is a command."""
    return len(data) == _CBW_SIZE and data[:4] == _CBW


def is_csw(data: bytes) -> bool:
    """Whether it is the status that ends a command."""
    return len(data) == _CSW_SIZE and data[:4] == _CSW


def _is_tmc(data: bytes) -> bool:
    return len(data) >= _TMC_HEADER and data[0] in _MSG_IDS and data[1] ^ data[2] == 0xFF and not data[3]


def without_tag(data: bytes) -> bytes:
    """What is asked, or answered, by `data`, whatever tag it has."""
    if is_cbw(data) or is_csw(data):
        return data[:4] + data[8:]
    if _is_tmc(data):
        return data[:1] + data[3:]
    return data


def retagged(answer: bytes, asked: bytes) -> bytes:
    """`answer` as it is to one that asked by `asked`."""
    if is_csw(answer) and is_cbw(asked):
        return answer[:4] + asked[4:8] + answer[8:]
    if _is_tmc(answer) and _is_tmc(asked):
        return answer[:1] + asked[1:3] + answer[3:]
    return answer
