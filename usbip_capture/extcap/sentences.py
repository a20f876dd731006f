"""Lines of the extcap grammar.

Ref: Wireshark 4.0, doc/extcap.adoc; extcap_parser.c for what is really read
"""

from __future__ import annotations


def sentence(keyword: str, **parts: object) -> str:
    """One line: `keyword {name=text}{name=text}`."""
    return f"{keyword} " + "".join(f"{{{name}={_safe(str(text))}}}" for name, text in parts.items())


def _safe(text: str) -> str:
    # A brace may end the value early, a line break always does.
    safe = text.replace("{", "(").replace("}", ")").replace("\r", " ").replace("\n", " ")
    if safe.isprintable():
        return safe
    # Not needed as a rule, and each import is paid for at every start of Wireshark.
    from usbip_capture.system.shown import one_line

    return one_line(safe)
