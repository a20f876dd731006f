"""`syslog.message`: RFC 5424, RFC 3164, ESP-IDF's lines, and any other bytes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.syslog.message import LINE, RFC3164, RFC5424, Message, MessageParser
from usbip_capture.syslog.severity import DEBUG, ERROR, WARNING
from usbip_capture.syslog.timestamps import parse_rfc3339


def parse(raw: bytes) -> Message:
    return MessageParser("192.0.2.10:1514", "192.0.2.10").parse(raw, 1_700_000_000_000_000_000)


def test_example_of_rfc_5424() -> None:
    message = parse(
        b"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 "
        b'[exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"][examplePriority@32473 class="high"] '
        b"\xef\xbb\xbfAn application event log entry..."
    )
    assert message.format == RFC5424
    assert (message.facility, message.severity, message.severity_name) == (20, 5, "notice")
    assert message.timestamp == "2003-10-11T22:14:15.003Z"
    assert message.device_ns == 1_065_910_455_003_000_000
    assert (message.hostname, message.app_name, message.procid) == ("mymachine.example.com", "evntslog", "")
    assert message.msgid == "ID47"
    assert message.structured_data == {
        "exampleSDID@32473": {"iut": "3", "eventSource": "Application", "eventID": "1011"},
        "examplePriority@32473": {"class": "high"},
    }
    assert message.text == "An application event log entry..."
    assert message.record == message.raw


def test_nil_values() -> None:
    message = parse(b"<13>1 - - - - -")
    fields = message.timestamp, message.hostname, message.app_name, message.procid, message.msgid, message.text
    assert fields == ("",) * 6
    assert message.structured_data == {}
    assert message.device_ns is None


@pytest.mark.parametrize(
    ("data", "expected", "text"),
    [
        (r'[a x="\"\\\]"]', {"a": {"x": '"\\]'}}, "t"),
        (r'[a x="C:\new"]', {"a": {"x": r"C:\new"}}, "t"),
        ('[a x="]"]', {"a": {"x": "]"}}, "t"),
        ('[a x=""][b][a y="2"]', {"a": {"x": "", "y": "2"}, "b": {}}, "t"),
        ('[a x="1" x="2"]', {"a": {"x": "2"}}, "t"),
        ('[a x="\u00e4\u00f6"]', {"a": {"x": "\u00e4\u00f6"}}, "t"),
        ("-", {}, "t"),
        ('[a x="1', {}, '[a x="1 t'),
        ("[not structured data]", {}, "[not structured data] t"),
    ],
)
def test_structured_data(data: str, expected: dict[str, dict[str, str]], text: str) -> None:
    message = parse(f"<13>1 - h a - - {data} t".encode())
    assert message.structured_data == expected
    assert message.text == text
    assert (message.hostname, message.app_name) == ("h", "a")


@pytest.mark.parametrize(
    ("raw", "timestamp", "host", "app", "pid", "text"),
    [
        ("<34>Oct 11 22:14:15 mine su: 'su root' failed", "Oct 11 22:14:15", "mine", "su", "", "'su root' failed"),
        ("<13>Feb  5 17:32:18 10.0.0.99 cron[77]: x: y", "Feb  5 17:32:18", "10.0.0.99", "cron", "77", "x: y"),
        ("<13>Feb  5 17:32:18 fe80::1 some text", "Feb  5 17:32:18", "fe80::1", "", "", "some text"),
        ("<13>Feb  5 17:32:18 su: x", "Feb  5 17:32:18", "", "su", "", "x"),
        ("<13>Feb  5 17:32:18 host just text", "Feb  5 17:32:18", "host", "", "", "just text"),
        ("<13>2023-11-14T22:13:20.5+01:00 h a[1]: t", "2023-11-14T22:13:20.5+01:00", "h", "a", "1", "t"),
        ("<13>Oct 11 2023 22:14:15 h a: t", "Oct 11 2023 22:14:15", "h", "a", "", "t"),
        ("<13>Oct 11 22:14:15 2023 h a: t", "Oct 11 22:14:15 2023", "h", "a", "", "t"),
        ("<13>Oct 11 22:14:15.123 h a: t", "Oct 11 22:14:15.123", "h", "a", "", "t"),
        ("<13>Oct 5 22:14:15 h a: t", "Oct 5 22:14:15", "h", "a", "", "t"),
        ("<13>2023-11-14T22:13:20 h a: t", "2023-11-14T22:13:20", "h", "a", "", "t"),
        ("<13>2023-11-14 22:13:20 h a: t", "2023-11-14 22:13:20", "h", "a", "", "t"),
        ("<13>22:13:20 text", "", "", "", "", "22:13:20 text"),
        ("<14>app: text", "", "", "app", "", "text"),
        ("<14>just some text", "", "", "", "", "just some text"),
        ("<14>", "", "", "", "", ""),
    ],
)
def test_rfc_3164_and_less(raw: str, timestamp: str, host: str, app: str, pid: str, text: str) -> None:
    message = parse(raw.encode())
    assert message.format == RFC3164
    found = message.timestamp, message.hostname, message.app_name, message.procid, message.text
    assert found == (timestamp, host, app, pid, text)
    assert message.record == message.raw


@pytest.mark.parametrize(
    ("line", "severity", "app", "uptime_ns"),
    [
        ("E (1234) wifi: no network", 3, "wifi", 1_234_000_000),
        ("W (7) boot.esp32: text", 4, "boot.esp32", 7_000_000),
        ("I (0) main_task: text", 6, "main_task", 0),
        ("D (99) a: text", 7, "a", 99_000_000),
        ("V (99) a: text", 7, "a", 99_000_000),
        ("E (1234) USB HOST: text", 3, "USB_HOST", 1_234_000_000),
        ("I (665) wifi:mode : sta", 6, "wifi", 665_000_000),
        ("I (26-11-21 12:34:56.789) clock: text", 6, "clock", None),
        ("I (12:34:56.789) clock: text", 6, "clock", None),
        ("Guru Meditation Error: Core  0 panic'ed (LoadProhibited). ", 2, "panic", None),
        ("assert failed: xQueueSemaphoreTake queue.c:1549", 2, "panic", None),
        ("rst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)", 6, "boot", None),
        ("anything else", 5, "", None),
        ("X (1234) wifi: no such letter", 5, "", None),
    ],
)
@pytest.mark.parametrize("colour", ["", "\x1b[0;31m"])
def test_lines_of_esp_idf(line: str, severity: int, app: str, uptime_ns: int | None, colour: str) -> None:
    message = parse(f"{colour}{line}{colour and chr(27) + '[0m'}".encode())
    assert (message.format, message.facility, message.severity) == (LINE, 1, severity)
    assert (message.app_name, message.hostname, message.text) == (app, "192.0.2.10", line)
    assert message.device_ns == uptime_ns
    assert message.record == f"<{8 + severity}>1 - 192.0.2.10 {app or '-'} - - - {line}".encode()


def test_further_lines_belong_to_the_one_before() -> None:
    parser = MessageParser("a")
    lines = ["E (1) wifi: failed:", "  reason 12", "I (2) main: well", "  still"]
    got = [(m.severity, m.app_name, m.text) for m in (parser.parse(line.encode(), 0) for line in lines)]
    assert got == [(3, "wifi", lines[0]), (3, "wifi", lines[1]), (6, "main", lines[2]), (6, "main", lines[3])]


ESP = "<14>1 2000-01-01T00:00:01.234Z esp32 esp - - - "


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("\x1b[0;31mE (1234) wifi: bad\x1b[0m", 3),  # its first byte is no letter: the bridge reports info
        ("\x1b[0;32mI (1234) wifi: good\x1b[0m", 6),
        ("E (1234) wifi: told as info on purpose", 6),
        ("\x1b[0;31mplain colour\x1b[0m", 6),
    ],
)
def test_the_severity_that_a_colour_has_hidden_from_the_bridge(text: str, severity: int) -> None:
    message = parse((ESP + text).encode())
    assert message.severity == severity
    assert "\x1b" not in message.text
    assert message.record == (ESP + text).encode().replace(b"<14>", b"<%d>" % (8 + severity))
    assert message.device_ns == 946_684_801_234_000_000


def test_a_byte_order_mark_before_everything() -> None:
    message = parse(b"\xef\xbb\xbf<11>1 - h a - - - x")
    assert (message.format, message.severity, message.hostname, message.text) == (RFC5424, 3, "h", "x")
    assert message.record == b"<11>1 - h a - - - x"


def test_invalid_utf_8_is_shown_and_recorded_as_it_came() -> None:
    message = parse(b"<13>1 - h a - - - \xff\xfe ok")
    assert message.text == "\ufffd\ufffd ok"
    assert message.record == message.raw
    line = parse(b"E (1) a: \xff\x1b[0m")
    assert line.record == b"<11>1 - 192.0.2.10 a - - - E (1) a: \xff"


@pytest.mark.parametrize("raw", [b"<192>1 - a b - - - x", b"<>x", b"<-1>x", b"<1234>x", b"<13", b"\0", b"<\xd9\xa3>x"])
def test_what_has_no_priority_is_a_line(raw: bytes) -> None:
    message = parse(raw)
    assert (message.format, message.severity) == (LINE, 5)
    assert message.text == raw.decode()


@given(
    st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode)),
    st.sampled_from([b"", b"<13>1 - a b c d "]),
)
def test_any_bytes_are_a_message(raw: bytes, head: bytes) -> None:
    message = parse(head + raw)
    assert 0 <= message.severity < 8
    assert message.structured_data is not None
    assert message.record.startswith(b"<")
    assert repr(message).startswith("<Message")
    assert message.device_ns is None or isinstance(message.device_ns, int)


def test_hostile_structured_data_takes_no_long_time() -> None:
    for raw in (b'[a x="' * 10_000, b"[a" + b" x=" * 20_000, b'[a x="' + b"\\" * 60_000, b"[a " + b" " * 60_000):
        assert parse(b"<13>1 - h a - - " + raw).structured_data == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1985-04-12T23:20:50.52Z", 482_196_050_520_000_000),
        ("1985-04-12T19:20:50.52-04:00", 482_196_050_520_000_000),
        ("2003-08-24T05:14:15.000003-07:00", 1_061_727_255_000_003_000),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456_789),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
        ("2023-02-30T00:00:00Z", None),
        ("2023-01-01T24:00:00Z", None),
        ("2023-01-01T00:00:00", None),
        ("0000-01-01T00:00:00Z", None),
        ("yesterday", None),
    ],
)
def test_time_stamps(text: str, expected: int | None) -> None:
    assert parse_rfc3339(text) == expected


@pytest.mark.parametrize(
    ("line", "severity", "app"),
    [
        ("E BOD: Brownout detector was triggered", ERROR, "BOD"),
        ("\x1b[0;31mE BOD: Brownout detector was triggered\x1b[0m", ERROR, "BOD"),
        ("W wifi: no stamp", WARNING, "wifi"),
        ("E (543) esp_idf_svc::wifi: lost", ERROR, "esp_idf_svc::wifi"),
        ("W esp_idf_svc::wifi::x:lost: again", WARNING, "esp_idf_svc::wifi::x"),
        (f"E (541) {'a' * 70}: lost", ERROR, "a" * 48),
        (f"E {'a' * 70000}: lost", ERROR, "a" * 48),
        ("I am here: x", DEBUG, "before"),
        ("E std::panic", DEBUG, "before"),
        ("EE (5) x: y", DEBUG, "before"),
    ],
)
def test_the_severity_of_a_line_hangs_neither_on_a_stamp_nor_on_its_tag(line: str, severity: int, app: str) -> None:
    parser = MessageParser("192.0.2.1")
    parser.parse(b"D (1) before: x", 0)
    message = parser.parse(line.encode(), 0)
    assert (message.severity, message.app_name) == (severity, app)


@pytest.mark.parametrize(
    ("raw", "host", "app", "pid"),
    [
        ("<86>Jun 14 15:16:01 combo sshd(pam_unix)[19939]: x", "combo", "sshd(pam_unix)", "19939"),
        ("<78>Nov  9 12:01:01 src crond(pam_unix): x", "src", "crond(pam_unix)", ""),
        ("<14>Jul  4 23:22:09 mac Microsoft Word[14463]: x", "mac", "Microsoft Word", "14463"),
        ("<14>Oct 11 22:14:15 UTC host app: x", "host", "app", ""),
        ("<14>Oct 11 22:14:15 HOST app: x", "HOST", "app", ""),
        ("<14>Oct 11 22:14:15 host esp_idf_svc::wifi: x", "host", "esp_idf_svc::wifi", ""),
        (f"<14>Oct 11 22:14:15 host {'a' * 100}: x", "host", "a" * 100, ""),
        ("<14>user logged in[12]: x", "", "", ""),
        ("<14>std::x y", "", "", ""),
    ],
)
def test_tags_as_senders_have_them(raw: str, host: str, app: str, pid: str) -> None:
    message = MessageParser("192.0.2.1").parse(raw.encode(), 0)
    assert (message.hostname, message.app_name, message.procid) == (host, app, pid)
    assert not app or message.text == "x"


PIECES = ["E (1) a", "a::", "a ", "<13>a", "a(", "a[", "<13>Oct 11 22:14:15 a", "(a)", "I a", "\x1b[0", "1:", "<13>1 "]


@pytest.mark.parametrize("piece", PIECES)
def test_the_work_for_a_message_grows_as_its_length(piece: str) -> None:
    def seconds(size: int) -> float:
        raw = (piece * (size // len(piece))).encode()
        best = float("inf")
        for _ in range(5):
            begun = time.thread_time()
            MessageParser("192.0.2.1").parse(raw, 0)
            best = min(best, time.thread_time() - begun)
        return best

    small, large = 1 << 13, 1 << 16
    assert seconds(large) < 24 * max(seconds(small), 2e-4)  # 64 if it grew by the square
