"""Answers to what Wireshark asks an extcap, as text: which interfaces, link types and options there are.

Wireshark waits for each answer without a time limit and asks again at every start, so nothing is imported here that
the answer does not need, and nothing ever touches the network.

Ref: Wireshark 4.0, doc/extcap.adoc; extcap.c, extcap_parser.c for what is really read.
"""

from __future__ import annotations

from usbip_capture import __version__

INTERFACE = "usbip-remote"
INTERFACE_DISPLAY = "USB/IP remote"
TITLE = "USB/IP"

#: LINKTYPE_USB_LINUX_MMAPPED. Only this one is named: a pcapng stream carries the link type of each interface itself.
LINKTYPE = 220
LINKTYPE_NAME = "USB_LINUX_MMAPPED"
LINKTYPE_DISPLAY = "USB with usbmon headers"

NO_FILTERS = (
    "capture filters are not supported yet: leave the capture filter empty and use a display filter, such as usbhid"
)


def answer(argv: list[str]) -> tuple[str, str] | None:
    """What to print for these arguments: (standard output, error sentence). None when they ask nothing.

    Unknown arguments are passed over, for newer versions of Wireshark add some.
    """
    if "--extcap-interfaces" in argv:
        return _lines(_interfaces()), ""
    if "--extcap-cleanup-postkill" in argv:
        return "", ""       # nothing of ours outlives a killed capture
    if "--extcap-dlts" in argv:
        return _of_interface(argv, _dlts)
    if "--extcap-config" in argv:
        if value_of(argv, "--extcap-reload-option") is not None:
            return "", ""   # no list of ours can be read again
        return _of_interface(argv, _config)
    text = value_of(argv, "--extcap-capture-filter")
    if text is not None:
        return refusal(text) + "\n" if refusal(text) else "", ""
    return None


def value_of(argv: list[str], name: str) -> str | None:
    """What follows `name` (or `name=`), the last time it is given; None when it is not, `""` when nothing follows."""
    found = None
    for index, argument in enumerate(argv):
        if argument == name:
            found = argv[index + 1] if index + 1 < len(argv) else ""
        elif argument.startswith(name + "="):
            found = argument[len(name) + 1 :]
    return found


def refusal(capture_filter: str) -> str:
    """Why this capture filter cannot be used; empty when it can."""
    return NO_FILTERS if capture_filter.strip() else ""


def unknown_interface(name: str | None) -> str:
    """The error sentence for an interface that is not ours; empty when it is ours."""
    if name == INTERFACE:
        return ""
    if not name:
        return f"no interface given: use --extcap-interface {INTERFACE}"
    return f"there is no interface {name!r} here: use --extcap-interface {INTERFACE}"


def sentence(keyword: str, **parts: object) -> str:
    """One line of the extcap grammar: `keyword {name=text}{name=text}`; a trailing `_` of a name is dropped."""
    return f"{keyword} " + "".join(f"{{{name.rstrip('_')}={_safe(str(text))}}}" for name, text in parts.items())


def _safe(text: str) -> str:
    # A brace may end the value early, a line break always does.
    return text.replace("{", "(").replace("}", ")").replace("\r", " ").replace("\n", " ")


def _lines(sentences: list[str]) -> str:
    return "".join(f"{line}\n" for line in sentences)


def _of_interface(argv: list[str], answers: _Answers) -> tuple[str, str]:
    wrong = unknown_interface(value_of(argv, "--extcap-interface"))
    return ("", wrong) if wrong else (_lines(answers()), "")


def _interfaces() -> list[str]:
    return [
        sentence("extcap", version=__version__, display=TITLE),
        sentence("interface", value=INTERFACE, display=INTERFACE_DISPLAY),
    ]


def _dlts() -> list[str]:
    return [sentence("dlt", number=LINKTYPE, name=LINKTYPE_NAME, display=LINKTYPE_DISPLAY)]


def _config() -> list[str]:
    from usbip_capture.options import BOOLEAN, FILESELECT, OPTIONS, SELECTOR

    lines = []
    for number, option in enumerate(OPTIONS):
        parts: dict[str, object] = {
            "number": number,
            "call": option.flag,
            "display": option.display + (f" ({option.unit})" if option.unit else ""),
            "type": option.kind,
            "tooltip": option.help,
        }
        if option.placeholder:
            parts["placeholder"] = option.placeholder
        # A required option has no default: with both, Wireshark 4.0 asks for it for ever.
        if option.required:
            parts["required"] = "true"
        elif option.kind == BOOLEAN:
            parts["default"] = "true" if option.default else "false"
        elif option.kind != SELECTOR and option.default_text:
            parts["default"] = option.default_text
        if option.limits:
            parts["range"] = f"{option.limits[0]},{option.limits[1]}"
        if option.validation:
            parts["validation"] = option.validation
        if option.kind == FILESELECT:
            parts["mustexist"] = "false"
        parts["group"] = option.group
        lines.append(sentence("arg", **parts))
        for value, display in option.choices:
            chosen = {"default": "true"} if value == option.default else {}
            lines.append(sentence("value", arg=number, value=value, display=display, **chosen))
    return lines


TYPE_CHECKING = False       # not from typing: that module alone doubles the time of an answer
if TYPE_CHECKING:
    from collections.abc import Callable

    _Answers = Callable[[], list[str]]
