"""What an option is: the class of those in `options`.

Plain and with no import, because Wireshark starts us anew for each question, several times at each start.

Ref: Wireshark 4.0, doc/extcap.adoc and extcap_parser.c (types and parameters of the `arg` sentence).
"""

from __future__ import annotations

Value = str | int | float | bool

# Types of the extcap `arg` sentence. Not `boolflag`: one that is on by default could not be switched off.
STRING = "string"
UNSIGNED = "unsigned"
DOUBLE = "double"
BOOLEAN = "boolean"
SELECTOR = "selector"
MULTICHECK = "multicheck"
FILESELECT = "fileselect"
PASSWORD = "password"

_ON = ("on", "true", "yes", "1")
_OFF = ("off", "false", "no", "0")


class Option:
    """One option, as `--name VALUE`; the preference is `extcap.usbip_remote.<name without dashes>`.

    kind: one of the types above; decides what `parse` returns.
    default: what is used when nothing is given; Wireshark gets the same.
    display: label in Wireshark's dialog; `help`: the tooltip, `--help` and the README.
    group: the tab of the dialog.
    limits: least and greatest number.
    validation: regular expression, for Qt and for Python, without braces (they end an extcap value).
    expects: how the refusal of a wrong value describes right ones, instead of the expression.
    alone: the value meant by the flag without one, empty if it needs one.
    choices: (value, display) of a selector. reload: others come from the server, by the button Reload.
    """

    __slots__ = (
        "alone",
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
        alone: str = "",
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
        self.alone = "on" if kind == BOOLEAN else alone

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
        return value if low <= value <= high else None  # not true for NaN either


def _boolean(text: str) -> bool | None:
    if text in _ON:
        return True
    return False if text in _OFF else None
