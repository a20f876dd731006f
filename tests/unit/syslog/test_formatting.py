"""Messages that we make: read again by our own parser, whatever text is in them."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.syslog.formatting import octet_counted, of_syslog_3, rfc5424
from usbip_capture.syslog.framing import Framer, datagram_frames
from usbip_capture.syslog.message import RFC3164, RFC5424, MessageParser
from usbip_capture.syslog.timestamps import format_rfc3339, parse_rfc3339
from usbip_capture.system.shown import one_line

TEXT = st.text(st.characters(), max_size=80)


def test_a_message() -> None:
    made = rfc5424(
        4, 1_700_000_000.25, "pi", "usbip-capture", "42", "refused", "a@1", {"by": "", "rule": 'x]"\\'}, "no"
    )
    assert made == (
        b'<84>1 2023-11-14T22:13:20.250000Z pi usbip-capture 42 refused [a@1 rule="x\\]\\"\\\\"] \xef\xbb\xbfno'
    )


@given(st.integers(0, 7), TEXT, TEXT, TEXT, TEXT, TEXT, TEXT)
def test_any_text_is_one_message(
    severity: int, hostname: str, app_name: str, procid: str, msgid: str, value: str, text: str
) -> None:
    made = rfc5424(severity, 1e9, hostname, app_name, procid, msgid, "audit@32473", {"a": value, "b]=": "c"}, text)
    assert len(made) <= 2048 or len(made) < 16_000
    assert all(byte >= 0x20 for byte in made)
    made.decode()
    framer = Framer()
    stream = octet_counted(made) * 2
    assert [frame for at in range(len(stream)) for frame, _ in framer.feed(stream[at : at + 1])] == [
        made.strip(b"\0")
    ] * 2
    ((frame, flaw),) = datagram_frames(made)
    message = MessageParser("host").parse(frame, 1, flaw)
    assert (message.format, message.facility, message.severity) == (RFC5424, 10, severity)
    expected = {"a": one_line(value), "b__": "c"} if value else {"b__": "c"}
    assert message.structured_data == {"audit@32473": expected}
    assert message.text == one_line(text)
    assert message.timestamp == "2001-09-09T01:46:40.000000Z"


@given(st.integers(0, 7), TEXT, TEXT, TEXT, TEXT)
def test_any_text_is_one_message_for_this_machine_s_syslog(
    severity: int, app_name: str, procid: str, value: str, text: str
) -> None:
    stamp = datetime(2026, 1, 2, 3, 4, 5)
    made = of_syslog_3(severity, stamp, app_name, procid, "audit@1", {"a": value}, text)
    assert made.startswith(b"<%d>Jan  2 03:04:05 " % (80 + severity))
    assert all(byte >= 0x20 for byte in made)
    assert made.decode().endswith("]")
    ((frame, _),) = datagram_frames(made)
    message = MessageParser("host").parse(frame, 1)
    assert (message.format, message.severity, message.timestamp) == (RFC3164, severity, "Jan  2 03:04:05")


def test_a_message_for_this_machine_s_syslog() -> None:
    stamp = datetime(2026, 11, 28, 23, 1, 17)
    made = of_syslog_3(5, stamp, "usbip-capture", "42", "a@1", {"kind": "x", "rule": '"'}, "text")
    assert made == b'<85>Nov 28 23:01:17 usbip-capture[42]: text [a@1 kind="x" rule="\\""]'
    assert len(of_syslog_3(5, stamp, "a", "1", "e", {"b": "c" * 400}, "\u00e4" * 5000)) in (2047, 2048)


def test_a_long_text_is_cut_between_characters() -> None:
    made = rfc5424(6, 0, "h", "a", "1", "k", "e", {}, "\u00e4" * 5000)
    assert 2040 < len(made) <= 2048
    made.decode()


@pytest.mark.parametrize("seconds", [0.0, 1.5, 1_700_000_000.123456, 253402300799.0])
def test_stamps(seconds: float) -> None:
    found = parse_rfc3339(format_rfc3339(seconds))
    assert found is not None
    assert abs(found / 1e9 - seconds) < 1e-5
