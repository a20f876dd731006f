"""Messages of syslog, as they are sent. Whatever text they are made of, each is one message, on one line.

Ref: RFC 5424, 6
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from usbip_capture.syslog.timestamps import format_rfc3339
from usbip_capture.system.shown import one_line

#: Facilities. Ref: RFC 5424, 6.2.1
AUTHPRIV = 10
#: Longest fields. Ref: RFC 5424, 6 (ABNF); of a parameter's value ours, as there is none.
_HOSTNAME, _APP_NAME, _PROCID, _MSGID, _SD_NAME, _SD_VALUE = 255, 48, 128, 32, 32, 512
#: What receivers should take. Ref: RFC 5424, 6.1
_LONGEST = 2048
_BOM = b"\xef\xbb\xbf"
#: Ref: RFC 3164, 4.1.2
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


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
    data = _structured_data(element, parameters)
    start = f"<{facility * 8 + severity}>1 {format_rfc3339(time)} {header} {data} ".encode()
    return start + _BOM + _cut(one_line(text), _LONGEST - len(start) - len(_BOM))


def of_syslog_3(
    severity: int,
    time: datetime,
    app_name: str,
    procid: str,
    element: str,
    parameters: Mapping[str, str],
    text: str,
    facility: int = AUTHPRIV,
) -> bytes:
    """The same as syslog(3) sends it to `/dev/log`, where the form of RFC 5424 is not read. time: in local time.

    Structured data stands behind the text. Ref: RFC 3164, 4.1; POSIX syslog()
    """
    stamp = f"{_MONTHS[time.month - 1]} {time.day:2} {time:%H:%M:%S}"
    tag = f"{_printable(app_name, _APP_NAME)}[{_printable(procid, _PROCID)}]"
    start = f"<{facility * 8 + severity}>{stamp} {tag}: ".encode()
    end = f" {_structured_data(element, parameters)}".encode()
    return start + _cut(one_line(text), _LONGEST - len(start) - len(end)) + end


def _structured_data(element: str, parameters: Mapping[str, str]) -> str:
    values = "".join(f' {_sd_name(name)}="{_sd_value(value)}"' for name, value in parameters.items() if value)
    return f"[{_sd_name(element)}{values}]"


def _cut(text: str, room: int) -> bytes:
    """So many bytes of UTF-8 at most, whole characters."""
    return text.encode()[: max(room, 0)].decode("utf-8", "ignore").encode()


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
