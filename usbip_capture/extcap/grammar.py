"""What Wireshark asks and gets, in the grammar of extcap: values of arguments, without argparse, whose import is slow,
and lines of an answer. They share a module, as each is loaded at every start of Wireshark.

Ref: Wireshark 4.0, doc/extcap.adoc; extcap_parser.c for what is really read
"""

from __future__ import annotations


def value_of(argv: list[str], name: str) -> str | None:
    """What follows `name` (or `name=`), the last time it is given; None when it is not, `""` when nothing follows."""
    found = None
    for index, argument in enumerate(argv):
        if argument == name:
            found = argv[index + 1] if index + 1 < len(argv) else ""
        elif argument.startswith(name + "="):
            found = argument[len(name) + 1 :]
    return found


def sentence(keyword: str, **parts: object) -> str:
    """One line: `keyword {name=text}{name=text}`."""
    return f"{keyword} " + "".join(f"{{{name}={_safe(str(text))}}}" for name, text in parts.items())


def _safe(text: str) -> str:
    # A brace may end the value early, a line break always does.
    safe = text.replace("{", "(").replace("}", ")").replace("\r", " ").replace("\n", " ")
    if safe.isprintable():
        return safe
    # Not needed as a rule.
    from usbip_capture.system.shown import one_line

    return one_line(safe)
