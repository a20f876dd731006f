"""The language of capture filters: text in, a test over the facts of a URB out.

    bulk and ep == 0x81        not control        status != 0        class == hid and length > 0

Wireshark asks for each key that is pressed whether the text is right, so that nothing is imported here but numbers.
A fact that is not known yet (the status of a URB that is still out) makes a test neither true nor false, and so
`False and unknown` is false, `True or unknown` is true (Kleene's logic).
"""

from __future__ import annotations

from usbip_capture.errors import LocalProtocolError
from usbip_capture.usb import status as statuses

TYPE_CHECKING = False  # not from typing: that module alone doubles the time of an answer to Wireshark
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Test = Callable[["Facts"], bool | None]
    Value = int | str

_TYPES = {"isochronous": 0, "iso": 0, "interrupt": 1, "int": 1, "control": 2, "bulk": 3}
_DIRECTIONS = {"in": 1, "out": 0}
# bInterfaceClass. Ref: USB-IF, Defined Class Codes
_CLASSES = {
    "audio": 0x01, "cdc": 0x02, "hid": 0x03, "physical": 0x05, "image": 0x06, "printer": 0x07, "storage": 0x08,
    "hub": 0x09, "cdc_data": 0x0A, "smartcard": 0x0B, "video": 0x0E, "wireless": 0xE0, "misc": 0xEF,
    "application": 0xFE, "vendor": 0xFF,
}  # fmt: skip
_STATUSES = {
    name: -value for name, value in vars(statuses).items() if name[0] == "E" and name.isupper() and type(value) is int
}
_STATUSES.update({f"-{name}": value for name, value in _STATUSES.items()}, stall=-statuses.EPIPE)

# Name in the language -> attribute of Facts, names of its values (None: numbers only), what a value is
_FIELDS: dict[str, tuple[str, dict[str, int] | None, str]] = {
    "device": ("device", None, "a busid such as 1-1.2, or VID:PID such as 303a:4004"),
    "vid": ("vid", None, "a number such as 0x303a"),
    "pid": ("pid", None, "a number such as 0x4004"),
    "ep": ("ep", None, "an endpoint such as 0x81, 0 for control"),
    "type": ("type", _TYPES, "control, bulk, interrupt or isochronous"),
    "dir": ("inward", _DIRECTIONS, "in or out"),
    "status": ("status", _STATUSES, "0, -32, EPIPE or stall"),
    "class": ("interface_class", _CLASSES, "a number, or " + ", ".join(_CLASSES)),
    "length": ("length", None, "a number of bytes"),
    "requested": ("requested", None, "a number of bytes"),
}
_ALIASES = {
    "endpoint": "ep", "transfer_type": "type", "direction": "dir", "len": "length", "idvendor": "vid",
    "idproduct": "pid", "busid": "device",
}  # fmt: skip
#: The comment on the packets that `descriptors` asks for; `frame.comment` distinguishes them from the rest.
ENUMERATION_LABEL = "usbip-capture: descriptors read at the start"
#: Facts that only the completion has.
LATE = ("status", "length")
_ORDERED = ("vid", "pid", "ep", "status", "class", "length", "requested")
_BARE = ("error", "descriptors", *_DIRECTIONS, *_TYPES)

_OPERATORS = ("==", "!=", "<=", ">=", "<", ">", "&&", "||", "!", "(", ")", "{", "}", ",")
_SPELLED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&&", "or": "||", "not": "!"}
# Not from the module operator, which takes longer to load than all else that a check of a filter needs.
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda found, wanted: found == wanted,
    "!=": lambda found, wanted: found != wanted,
    "<=": lambda found, wanted: found <= wanted,
    ">=": lambda found, wanted: found >= wanted,
    "<": lambda found, wanted: found < wanted,
    ">": lambda found, wanted: found > wanted,
}
_MAX_DEPTH = 50


class FilterError(LocalProtocolError):
    """The text is not a capture filter. `position` counts characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class Facts:
    """What a filter may ask of a URB; None is not known (yet).

    device: busid. inward: 1 for IN, 0 for OUT. type: as usbmon numbers transfer types. ep: bEndpointAddress, 0 for
    control in both directions. interface_class: bInterfaceClass of the interface that the URB is for.
    status: 0 or -errno. length: bytes moved; requested: bytes asked for.
    descriptors: whether it is one of the requests by which the capture read the device at its start.
    """

    __slots__ = (
        "descriptors", "device", "ep", "interface_class", "inward", "length", "pid", "requested", "status", "type",
        "vid",
    )  # fmt: skip

    device: str | None
    vid: int | None
    pid: int | None
    ep: int | None
    type: int | None
    inward: int | None
    interface_class: int | None
    status: int | None
    length: int | None
    requested: int | None
    descriptors: bool

    def __init__(self, **known: int | str | None) -> None:
        for name in self.__slots__:
            setattr(self, name, known.get(name, False if name == "descriptors" else None))


class Filter:
    """A filter that was understood. `text` as given; `late` whether the completion of a URB may decide."""

    __slots__ = ("late", "test", "text")

    def __init__(self, text: str, test: Test, late: bool) -> None:
        self.text = text
        self.test = test
        self.late = late


def parse(text: str) -> Filter | None:
    """The filter that `text` describes; None if it is empty, which lets everything pass. Raises FilterError."""
    if not text.strip():
        return None
    parser = _Parser(text)
    return Filter(text.strip(), parser.whole(), parser.late)


class _Parser:
    """Recursive descent: `or` of `and` of `not` of comparisons, bare words and parentheses."""

    def __init__(self, text: str) -> None:
        self.late = False
        self._text = text.lower()
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0

    def whole(self) -> Test:
        test = self._either()
        token, position = self._tokens[self._at]
        if token:
            raise _error(f"{self._typed(position)!r} is unexpected here: join conditions with and / or", position)
        return test

    def _either(self) -> Test:
        tests = [self._both()]
        while self._take("||"):
            tests.append(self._both())
        return _or(tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self._take("&&"):
            tests.append(self._one())
        return _and(tests)

    def _one(self) -> Test:
        token, position = self._next()
        if token in ("!", "("):
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise _error("too deeply nested", position)
            if token == "!":
                test = _not(self._one())
            else:
                test = self._either()
                self._expect(")", position)
            self._depth -= 1
            return test
        word = token.lower()
        name = _ALIASES.get(word, word)
        if self._tokens[self._at][0] in _COMPARE or (name in _FIELDS and self._peek() == "in"):
            if name in _FIELDS:
                return self._comparison(name)
        elif word in _BARE:
            return self._bare(word)
        if name in _FIELDS:
            raise _error(f"{token} needs a comparison, such as {_example(name)}", self._tokens[self._at][1])
        if not token:
            raise _error("something is missing here", position)
        if token in _OPERATORS:
            raise _error(f"a condition is missing before {self._typed(position)!r}", position)
        raise _error(f"{token!r} is not known: use {', '.join(_FIELDS)}, control, bulk, interrupt, iso, in, out, "
                     "error, descriptors", position)  # fmt: skip

    def _bare(self, word: str) -> Test:
        if word == "descriptors":
            return lambda facts: facts.descriptors
        if word == "error":
            self.late = True
            fine = (0, *statuses.UNLINKED)
            return lambda facts: None if facts.status is None else facts.status not in fine
        if word in _DIRECTIONS:
            return _compare("inward", "==", _DIRECTIONS[word])
        return _compare("type", "==", _TYPES[word])

    def _comparison(self, name: str) -> Test:
        operator, position = self._next()
        self.late = self.late or name in LATE
        if operator.lower() == "in":
            return _or(self._set(name))
        if operator not in ("==", "!=") and name not in _ORDERED:
            raise _error(f"{name} can only be compared by == and !=", position)
        value = self._value(name)
        if name == "device":
            return _compare_device(operator, str(value))
        return _compare(_FIELDS[name][0], operator, value)

    def _set(self, name: str) -> list[Test]:
        opening, position = self._next()
        if opening not in ("(", "{"):
            raise _error("in needs a list such as (0x81, 0x82)", position)
        tests = []
        while True:
            value = self._value(name)
            tests.append(
                _compare_device("==", str(value)) if name == "device" else _compare(_FIELDS[name][0], "==", value)
            )
            if not self._take(","):
                break
        self._expect(")" if opening == "(" else "}", position)
        return tests

    def _value(self, name: str) -> Value:
        token, position = self._next()
        _, names, expected = _FIELDS[name]
        if token and token not in _OPERATORS:
            if name == "device":
                return _device(token, position)
            if names is not None:
                for known in (token, token.lower(), token.upper()):
                    if known in names:
                        return names[known]
            number = _number(token)
            if number is not None and name not in ("type", "dir"):
                return number
        raise _error(f"{self._typed(position)!r} is not a value of {name}: give {expected}" if token else
                     f"a value is missing: give {expected}", position)  # fmt: skip

    # -- tokens

    def _next(self) -> tuple[str, int]:
        token = self._tokens[self._at]
        if token[0]:
            self._at += 1
        return token

    def _typed(self, position: int) -> str:
        """The token at `position` as it was typed: `and`, which is && to us."""
        token = next(token for token, at in self._tokens if at == position)
        spelled = (word for word, sign in _SPELLED.items() if sign == token)
        return next((word for word in spelled if self._text.startswith(word, position)), token)

    def _peek(self) -> str:
        return self._tokens[self._at][0].lower()

    def _take(self, token: str) -> bool:
        if self._tokens[self._at][0] != token:
            return False
        self._at += 1
        return True

    def _expect(self, token: str, opened: int) -> None:
        if not self._take(token):
            raise _error(f"{token!r} is missing for the bracket at {opened + 1}", self._tokens[self._at][1])


def _error(message: str, position: int) -> FilterError:
    return FilterError(f"at {position + 1}: {message}", position)


def _example(name: str) -> str:
    return {"device": "device == 1-1", "ep": "ep == 0x81", "type": "type == bulk", "dir": "dir == in",
            "class": "class == hid"}.get(name, f"{name} != 0")  # fmt: skip


def _tokens(text: str) -> list[tuple[str, int]]:
    """(token, position); the last one is empty."""
    tokens = []
    at = 0
    while at < len(text):
        character = text[at]
        if character.isspace():
            at += 1
            continue
        start = at
        if character in "\"'":
            at = text.find(character, start + 1) + 1
            if not at:
                raise _error(f"this {character} is not closed", start)
            tokens.append((text[start + 1 : at - 1], start))
            continue
        for operator in _OPERATORS:
            if text.startswith(operator, at):
                at += len(operator)
                break
        else:
            while at < len(text) and (text[at].isalnum() or text[at] in "_.:-"):
                at += 1
            if at == start:
                known = {"=": "use == to compare", "&": "use and", "|": "use or"}
                raise _error(known.get(character, f"{character!r} means nothing here"), start)
        token = text[start:at]
        tokens.append((_SPELLED.get(token.lower(), token), start))
    tokens.append(("", len(text)))
    return tokens


def _number(token: str) -> int | None:
    digits = token.removeprefix("-")
    if not digits.isascii() or not digits.isalnum() or len(digits) > 12:
        return None
    try:
        number = int(digits, 16 if digits[:2].lower() == "0x" else 10)
    except ValueError:
        return None
    return -number if token.startswith("-") else number


def _device(token: str, position: int) -> str:
    vid, colon, pid = token.partition(":")
    if not colon:
        return token
    try:
        return f"{int(vid, 16):04x}:{int(pid, 16):04x}"
    except ValueError:
        raise _error(f"{token!r} is not a device: give {_FIELDS['device'][2]}", position) from None


# -- tests


def _not(test: Test) -> Test:
    def negated(facts: Facts) -> bool | None:
        found = test(facts)
        return None if found is None else not found

    return negated


def _and(tests: list[Test]) -> Test:
    """All of them; as a loop, for a chain of them may be long."""
    if len(tests) == 1:
        return tests[0]

    def all_of(facts: Facts) -> bool | None:
        unknown = False
        for test in tests:
            found = test(facts)
            if found is False:
                return False
            unknown = unknown or found is None
        return None if unknown else True

    return all_of


def _or(tests: list[Test]) -> Test:
    """Any of them."""
    if len(tests) == 1:
        return tests[0]

    def any_of(facts: Facts) -> bool | None:
        unknown = False
        for test in tests:
            found = test(facts)
            if found:
                return True
            unknown = unknown or found is None
        return None if unknown else False

    return any_of


def _compare_device(operator: str, wanted: str) -> Test:
    """By VID:PID if there is a colon, else by busid."""
    equal = operator == "=="
    if ":" in wanted:
        vid, _, pid = wanted.partition(":")
        number = int(vid, 16), int(pid, 16)
        return lambda facts: ((facts.vid, facts.pid) == number) is equal
    return lambda facts: (facts.device == wanted) is equal


def _compare(attribute: str, operator: str, wanted: Value) -> Test:
    compare = _COMPARE[operator]

    def test(facts: Facts) -> bool | None:
        found = getattr(facts, attribute)
        return None if found is None else compare(found, wanted)

    return test
