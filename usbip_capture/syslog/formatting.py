"""Messages of RFC 5424, as they are sent. Whatever text they are made of, each is one message, on one line.

Ref: RFC 5424, 6
"""

from __future__ import annotations

from collections.abc import Mapping

from usbip_capture.syslog.timestamps import format_rfc3339
from usbip_capture.system.shown import one_line

#: Facilities. Ref: RFC 5424, 6.2.1
AUTHPRIV = 10
#: Longest fields. Ref: RFC 5424, 6 (ABNF); of a parameter's value ours, as there is none.
_HOSTNAME, _APP_NAME, _PROCID, _MSGID, _SD_NAME, _SD_VALUE = 255, 48, 128, 32, 32, 512
#: What receivers should take. Ref: RFC 5424, 6.1
_LONGEST = 2048
_BOM = b"\xef\xbb\xbf"


def rfc5424(
    severity: int,
    time: float,
    hostname: str,
    app_name: str,
    procid: str,
    msgid: str,
    element: str,
    parameters: Mapping[str, str],
    text: str,
    facility: int = AUTHPRIV,
) -> bytes:
    """One message. time: seconds since 1970. element, parameters: its structured data, without what is empty.

    The text is cut where the message would be longer than receivers should take.
    """
    fields = (
        (hostname, _HOSTNAME), (app_name, _APP_NAME), (procid, _PROCID), (msgid, _MSGID),
    )  # fmt: skip
    header = " ".join(_printable(field, longest) for field, longest in fields)
    values = "".join(f' {_sd_name(name)}="{_sd_value(value)}"' for name, value in parameters.items() if value)
    start = f"<{facility * 8 + severity}>1 {format_rfc3339(time)} {header} [{_sd_name(element)}{values}] ".encode()
    room = max(_LONGEST - len(start) - len(_BOM), 0)
    return start + _BOM + one_line(text).encode()[:room].decode("utf-8", "ignore").encode()


def octet_counted(message: bytes) -> bytes:
    """As it is sent in a stream. Ref: RFC 6587, 3.4.1"""
    return b"%d %s" % (len(message), message)


def _printable(text: str, longest: int) -> str:
    """A field of the header: PRINTUSASCII, `-` for nothing."""
    return "".join(c if "!" <= c <= "~" else "_" for c in text[:longest]) or "-"


def _sd_name(text: str) -> str:
    return "".join("_" if c in '="]' else c for c in _printable(text, _SD_NAME))


def _sd_value(text: str) -> str:
    """Ref: RFC 5424, 6.3.3: three characters are escaped; what is not printable is no receiver's business."""
    return one_line(text)[:_SD_VALUE].replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
