"""Every option of a capture, told once: Wireshark's dialog, the command line, the README and our own checks read it.

Plain classes and no import, because Wireshark starts us anew for each question, several times at each start.

Ref: Wireshark 4.0, doc/extcap.adoc and extcap_parser.c (types and parameters of the `arg` sentence).
"""

from __future__ import annotations

#: The Wireshark interface that is always there.
INTERFACE = "usbip-remote"

Value = str | int | float | bool

# Types of the extcap `arg` sentence. Not `boolflag`: one that is on by default could not be switched off.
STRING = "string"
UNSIGNED = "unsigned"
DOUBLE = "double"
BOOLEAN = "boolean"
SELECTOR = "selector"
FILESELECT = "fileselect"

SERVER = "Server"
CAPTURE = "Capture"
DEBUG = "Debug"

_DEVICE = r"([^\s:/,]+|(0[xX])?[0-9A-Fa-f]+:(0[xX])?[0-9A-Fa-f]+)"
_ON = ("on", "true", "yes", "1")
_OFF = ("off", "false", "no", "0")


class Option:
    """One option, as `--name VALUE`; the preference is `extcap.usbip_remote.<name without dashes>`.

    kind: one of the types above; decides what `parse` returns.
    default: what is used when nothing is given; Wireshark is told the same.
    display: label in Wireshark's dialog; `help`: the tooltip, `--help` and the README.
    group: the tab of the dialog.
    limits: least and greatest number.
    validation: regular expression, for Qt and for Python, without braces (they end an extcap value).
    expects: what the refusal of a wrong value says instead of the expression.
    choices: (value, display) of a selector. reload: others come from the server, by the button Reload.
    """

    __slots__ = (
        "choices",
        "default",
        "display",
        "expects",
        "group",
        "help",
        "kind",
        "limits",
        "name",
        "placeholder",
        "reload",
        "required",
        "unit",
        "validation",
    )

    def __init__(
        self,
        name: str,
        kind: str,
        default: Value,
        display: str,
        help: str,
        *,
        group: str,
        limits: tuple[int, int] | None = None,
        unit: str = "",
        placeholder: str = "",
        required: bool = False,
        validation: str = "",
        expects: str = "",
        choices: tuple[tuple[str, str], ...] = (),
        reload: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.display = display
        self.help = help
        self.group = group
        self.limits = limits
        self.unit = unit
        self.placeholder = placeholder
        self.required = required
        self.validation = validation
        self.expects = expects
        self.choices = choices
        self.reload = reload

    @property
    def flag(self) -> str:
        """As typed: `--listen-in`."""
        return f"--{self.name}"

    @property
    def key(self) -> str:
        """As a Python name: `listen_in`."""
        return self.name.replace("-", "_")

    @property
    def preference(self) -> str:
        """The end of its name as a preference of Wireshark: `listenin`."""
        return self.name.replace("-", "")

    @property
    def default_text(self) -> str:
        """The default as it is written on a command line; empty when there is none."""
        return self.text(self.default)

    def text(self, value: Value) -> str:
        """`value` as it is written on a command line."""
        if isinstance(value, bool):
            return "on" if value else "off"
        return str(value)

    def parse(self, text: str) -> Value:
        """The value that `text` stands for. Raises LocalProtocolError: option, value and what is possible."""
        text = text.strip()
        if not text and not self.default_text:
            return self.default
        value = self._convert(text)
        if value is None:
            from usbip_capture.errors import LocalProtocolError

            shown = text if len(text) <= 60 else f"{text[:57]}..."
            raise LocalProtocolError(f"{self.flag} cannot be {shown!r}: give {self.expectation}")
        return value

    @property
    def expectation(self) -> str:
        """What a value must be: `a whole number from 1 to 65535`."""
        if self.expects:
            return self.expects
        if self.kind == BOOLEAN:
            return "on or off"
        if self.choices:
            return " or ".join(value for value, _ in self.choices)
        number = "a whole number" if self.kind == UNSIGNED else "a number"
        of_unit = f" of {self.unit}" if self.unit else ""
        return f"{number}{of_unit} from {self.limits[0]} to {self.limits[1]}" if self.limits else f"{number}{of_unit}"

    def _convert(self, text: str) -> Value | None:
        """None when `text` is not such a value."""
        if self.kind == BOOLEAN:
            return _boolean(text.lower())
        if self.kind in (UNSIGNED, DOUBLE):
            return self._number(text)
        if self.choices and not self.reload:
            return text.lower() if any(text.lower() == value for value, _ in self.choices) else None
        if self.validation:
            import re

            return text if re.search(self.validation, text) else None
        return text

    def _number(self, text: str) -> int | float | None:
        value: int | float
        if self.kind == UNSIGNED and not (text.isascii() and text.isdigit()):
            return None
        try:
            value = int(text) if self.kind == UNSIGNED else float(text)
        except ValueError:
            return None
        low, high = self.limits or (0, float("inf"))
        return value if low <= value <= high else None      # not true for NaN either


OPTIONS = (
    Option(
        "host",
        STRING,
        "",
        "Server",
        "Name or address of the USB/IP server; demo is a simulated device that needs no server",
        group=SERVER,
        placeholder="raspberrypi.local, 192.0.2.10 or demo",
        required=True,
        validation=r"^\s*[^\s/]+\s*$",
        expects="the name or the address of a server, such as raspberrypi.local, 192.0.2.10 or pi:3241",
    ),
    Option(
        "port",
        UNSIGNED,
        3240,
        "Port",
        "TCP port of the server",
        group=SERVER,
        limits=(1, 65535),
    ),
    Option(
        "device",
        SELECTOR,
        "auto",
        "Device",
        "Which device: a busid such as 1-1.2, VID:PID such as 303a:4004, several with commas, or all; "
        "auto: the only one that is exported",
        group=SERVER,
        placeholder="Reload",
        validation=rf"^\s*{_DEVICE}(\s*,\s*{_DEVICE})*\s*$",
        expects="auto, all, a busid such as 1-1.2, VID:PID in hexadecimal such as 303a:4004, or several with commas",
        choices=(("auto", "The only device that is exported"), ("all", "All devices")),
        reload=True,
    ),
    Option(
        "mode",
        SELECTOR,
        "probe",
        "Mode",
        "probe: import the device, read it as a host does, then read what its IN endpoints send",
        group=CAPTURE,
        choices=(("probe", "Probe: import the device, read it, listen to it"),),
    ),
    Option(
        "descriptors",
        BOOLEAN,
        True,
        "Read descriptors",
        "Read all descriptors at the start; without them Wireshark shows most classes as raw bytes",
        group=CAPTURE,
    ),
    Option(
        "listen-in",
        BOOLEAN,
        True,
        "Listen to IN endpoints",
        "Read the interrupt, bulk and isochronous IN endpoints until stopped, except bulk IN of mass storage",
        group=CAPTURE,
    ),
    Option(
        "reconnect",
        BOOLEAN,
        True,
        "Wait for a device that went away",
        "When the device is unplugged or reset, wait for it and import it again; off: end the capture",
        group=CAPTURE,
    ),
    Option(
        "snaplen",
        UNSIGNED,
        262144,
        "Snapshot length",
        "Keep at most this much of each packet, its header of 64 bytes included",
        group=CAPTURE,
        limits=(64, 262144),
        unit="bytes",
    ),
    Option(
        "duration",
        DOUBLE,
        0,
        "Duration",
        "Stop after this time; 0: capture until stopped",
        group=CAPTURE,
        limits=(0, 31536000),
        unit="seconds",
    ),
    Option(
        "count",
        UNSIGNED,
        0,
        "Packet count",
        "Stop after this many packets; 0: no limit",
        group=CAPTURE,
        limits=(0, 2147483647),
        unit="packets",
    ),
    Option(
        "log-level",
        SELECTOR,
        "info",
        "Log level",
        "How much is written into the log file",
        group=DEBUG,
        choices=(("error", "Errors"), ("warning", "Warnings"), ("info", "Information"), ("debug", "Everything")),
    ),
    Option(
        "log-file",
        FILESELECT,
        "",
        "Log file",
        "Where the log goes; empty: nowhere",
        group=DEBUG,
        placeholder="usbip-capture.log",
    ),
)


class Choices:
    """What was chosen: one attribute for each option, by its `key`."""

    host: str
    port: int
    device: str
    mode: str
    descriptors: bool
    listen_in: bool
    reconnect: bool
    snaplen: int
    duration: float
    count: int
    log_level: str
    log_file: str

    def __init__(self, given: dict[str, str]) -> None:
        """given: texts by option name; what is not in it has its default. Raises LocalProtocolError."""
        for option in OPTIONS:
            text = given.get(option.name)
            setattr(self, option.key, option.default if text is None else option.parse(text))


def markdown_table() -> str:
    """The options as a Markdown table, for the README."""
    rows = ["| option | preference | tab | default | what it does |", "| --- | --- | --- | --- | --- |"]
    for option in OPTIONS:
        default = f"`{option.default_text}`" if option.default_text else ""
        note = ""
        if option.kind in (UNSIGNED, DOUBLE):
            note = f" ({option.expectation})"
        elif len(option.choices) > 1 and not option.reload:
            note = " (" + ", ".join(f"`{value}`" for value, _ in option.choices) + ")"
        rows.append(f"| `{option.flag}` | `{option.preference}` | {option.group} | {default} | {option.help}{note} |")
    return "\n".join(rows) + "\n"


def _boolean(text: str) -> bool | None:
    if text in _ON:
        return True
    return False if text in _OFF else None
