"""One syslog message, and the parser of those of one sender.

Ref: RFC 5424, 6; RFC 3164, 4 and 5
"""

from __future__ import annotations

import re
from typing import Final

from usbip_capture.syslog import espidf
from usbip_capture.syslog.severity import INFO, NOTICE, SEVERITIES, USER
from usbip_capture.syslog.timestamps import parse_rfc3339

_LESS_THAN: Final = ord("<")  # a byte order mark may stand before it
RFC5424, RFC3164, LINE = "rfc5424", "rfc3164", "line"

_PRIORITY = re.compile(r"<([0-9]{1,3})>")
# Lenient: fields may be longer than RFC 5424 allows, and hold any text without space.
_RFC5424 = re.compile(r"<([0-9]{1,3})>([1-9][0-9]?) (\S+) (\S+) (\S+) (\S+) (\S+)(?: |$)")
_NAME = r'[^\s=\]"]+'
_VALUE = r'[^"\\]*(?:\\.[^"\\]*)*'
_ELEMENT = rf'\[{_NAME}(?: +{_NAME}="{_VALUE}")* *\]'
_STRUCTURED_DATA = re.compile(rf"(?:-|(?:{_ELEMENT})+)(?: |$)", re.DOTALL)
_ELEMENT_NAME = re.compile(rf"\[({_NAME})")
_PARAMETER = re.compile(rf' +({_NAME})="({_VALUE})"', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\\]])')
# The old form, with the stamp of RFC 3164 or that of newer senders; both may be missing. The year, fractions and a day
# of one digit are what senders add or leave out.
_CLOCK = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?"
_YEAR = r"(?:19|20)[0-9]{2}"
_ZONE = r"(?:UTC|GMT|[ECMP][SD]T|AE[SD]T|CES?T|EES?T|WES?T|BST|IST|JST|MSK|[+-][0-9]{4})"
_HOST = r"[^\s\[]*[^\s\[:]"
_STAMP = (
    rf"[A-Z][a-z]{{2}} {{1,2}}[0-9]{{1,2}} (?:{_YEAR} )?{_CLOCK}(?: {_YEAR}(?= ))?(?: {_ZONE}(?= {_HOST} \S))?"
    rf"|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[T ]{_CLOCK}(?:Z|[+-][0-9]{{2}}:?[0-9]{{2}})?"
)
# What stands after the tag, as `(pam_unix)`, belongs to it; a module path of Rust is one; and after a host, with a
# process id, it may be of several words, as macOS has it.
_WORD = r"[\w./@-]{1,128}"
_NAME_TAG = rf"{_WORD}(?:::{_WORD})*(?:\({_WORD}\))?"
_WORDS_TAG = rf"{_WORD}(?: {_WORD}){{1,3}}(?=\[[0-9]{{1,10}}\]: )"
_TAG = rf"(?![0-9]{{1,2}}:[0-9]{{2}}:)({_NAME_TAG}|(?(2){_WORDS_TAG}|(?!)))(?:\[([^\]\s]{{1,48}})\])?:(?!:) ?"
_RFC3164 = re.compile(rf"(?:({_STAMP}) (?:({_HOST}) (?=\S))?)?(?:{_TAG})?")


class Message:
    """A message as it came, and its parts.

    raw: its bytes, without framing. format: `rfc5424`, `rfc3164`, or `line` for text that has no priority.
    facility, severity: numbers. timestamp: the sender's, as text. hostname, app_name, procid, msgid: empty if not
    given.
    text: its text, without BOM and without colours.
    source: the sender's address. arrival_ns: when it came, in nanoseconds since 1970.
    device_ns: the sender's own time in nanoseconds, since 1970 or since its start; None if it has none, as the
    stamps of RFC 3164, which have no zone.
    flaw: what was wrong with it on the wire, empty if nothing was.
    """

    __slots__ = (
        "_priority",
        "_sd",
        "_uptime_ns",
        "app_name",
        "arrival_ns",
        "facility",
        "flaw",
        "format",
        "hostname",
        "msgid",
        "procid",
        "raw",
        "severity",
        "source",
        "text",
        "timestamp",
    )

    def __init__(self, raw: bytes, source: str, arrival_ns: int, flaw: str) -> None:
        self.raw = raw
        self.source = source
        self.arrival_ns = arrival_ns
        self.flaw = flaw
        self.format = LINE
        self.facility = USER
        self.severity = NOTICE
        self.timestamp = self.hostname = self.app_name = self.procid = self.msgid = self.text = self._sd = ""
        self._uptime_ns: int | None = None
        self._priority = -1  # that its bytes begin with, in its shortest form

    @property
    def severity_name(self) -> str:
        """`error`, `warning` and so on."""
        return SEVERITIES[self.severity]

    @property
    def tagged_text(self) -> str:
        """The text after its tag; ESP-IDF's lines name their tag themselves."""
        named = not self.app_name or self.format == LINE or espidf.recognize(self.text)
        return self.text if named else f"{self.app_name}: {self.text}"

    @property
    def structured_data(self) -> dict[str, dict[str, str]]:
        """Parameters by name, by the name of their element; the last of those that are given twice."""
        found: dict[str, dict[str, str]] = {}
        at = 0
        while (name := _ELEMENT_NAME.match(self._sd, at)) is not None:
            element = found.setdefault(name[1], {})
            at = name.end()
            while (parameter := _PARAMETER.match(self._sd, at)) is not None:
                element[parameter[1]] = _ESCAPED.sub(r"\1", parameter[2])
                at = parameter.end()
            at = self._sd.find("]", at) + 1
        return found

    @property
    def device_ns(self) -> int | None:
        return parse_rfc3339(self.timestamp) if self.timestamp else self._uptime_ns

    @property
    def record(self) -> bytes:
        """The message for Wireshark's syslog dissector: with a header if it had none, else as it came.

        Only a priority that the text itself contradicts is put right: see `MessageParser`.
        """
        if self.format == LINE:
            head = f"<{self.facility << 3 | self.severity}>1 - {self.hostname or '-'} {self.app_name or '-'} - - - "
            return head.encode() + espidf.without_colours(self.raw.decode("utf-8", "surrogateescape")).encode(
                "utf-8", "surrogateescape"
            )
        priority = self.facility << 3 | self.severity
        if priority == self._priority:
            return self.raw
        end = self.raw.index(b">")
        return b"<%d" % priority + self.raw[end:]

    def __repr__(self) -> str:
        return f"<Message {self.source} {self.severity_name} {self.app_name or '-'}: {self.text[:60]!r}>"


class MessageParser:
    """Messages of one sender: a line without any header belongs to what came before it.

    An ESP32 bridge takes the severity from the first byte of a line, which may be that of a colour: then its `info`
    means nothing, and the letter after the colour decides.

    source: the sender's address; also the host name of lines, which have none.
    """

    def __init__(self, source: str, hostname: str = "") -> None:
        self._source = source
        self._hostname = hostname
        self._last: tuple[int, str] = NOTICE, ""

    def parse(self, frame: bytes, arrival_ns: int, flaw: str = "") -> Message:
        """The message in a frame. Any bytes are one: what cannot be understood is its text."""
        message = Message(frame, self._source, arrival_ns, flaw)
        text = frame.decode("utf-8", "replace").removeprefix("\ufeff")
        header = _RFC5424.match(text)
        if header is not None and int(header[1]) < 192:
            _, _, timestamp, hostname, app_name, procid, msgid = header.groups()
            message.format = RFC5424
            message.timestamp = "" if timestamp == "-" else timestamp
            message.hostname = "" if hostname == "-" else hostname
            message.app_name = "" if app_name == "-" else app_name
            message.procid = "" if procid == "-" else procid
            message.msgid = "" if msgid == "-" else msgid
            at = header.end()
            data = _STRUCTURED_DATA.match(text, at)
            if data is not None:
                message._sd = text[at : data.end()] if text[at] == "[" else ""
                at = data.end()
            self._fill(message, header[1], text[at:])
        elif (priority := _PRIORITY.match(text)) is not None and int(priority[1]) < 192:
            message.format = RFC3164
            old = _RFC3164.match(text, priority.end())
            at = priority.end()
            if old is not None:
                message.timestamp, message.hostname, message.app_name, message.procid = (g or "" for g in old.groups())
                at = old.end()
            self._fill(message, priority[1], text[at:])
        else:
            self._line(message, text)
        self._last = message.severity, message.app_name
        return message

    def _fill(self, message: Message, digits: str, text: str) -> None:
        priority = int(digits)
        message.facility, message.severity = priority >> 3, priority & 7
        if message.raw[0] == _LESS_THAN and (digits[0] != "0" or len(digits) == 1):
            message._priority = priority
        text = text.removeprefix("\ufeff")
        if "\x1b" in text:
            coloured = text[0] == "\x1b"
            text = espidf.without_colours(text)
            found = espidf.recognize(text) if coloured and message.severity == INFO else None
            if found is not None:
                message.severity = found[0]
        message.text = text

    def _line(self, message: Message, text: str) -> None:
        text = espidf.without_colours(text)
        message.text = text
        message.hostname = self._hostname
        found = espidf.recognize(text)
        if found is None:
            message.severity, message.app_name = self._last
        else:
            message.severity, message.app_name, message._uptime_ns = found
