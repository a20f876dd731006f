"""Answers to what Wireshark asks an extcap, as text: which interfaces, link types and options there are.

Wireshark waits for each answer without a time limit and asks again at every start, so nothing is imported here that
the answer does not need, and nothing but Reload ever touches the network.

Ref: Wireshark 4.0, doc/extcap.adoc; extcap.c, extcap_parser.c for what is really read.
"""

from __future__ import annotations

from usbip_capture import __version__
from usbip_capture.extcap.grammar import sentence, value_of
from usbip_capture.options.table import INTERFACE

TYPE_CHECKING = False  # not from typing: Wireshark waits for this import
if TYPE_CHECKING:
    from usbip_capture.servers.known import KnownServer
    from usbip_capture.servers.known_places import KnownPlace

INTERFACE_DISPLAY = "USB/IP remote"
TITLE = "USB/IP"

#: LINKTYPE_USB_LINUX_MMAPPED. Only this one is named: a pcapng stream carries the link type of each interface itself.
LINKTYPE = 220
LINKTYPE_NAME = "USB_LINUX_MMAPPED"
LINKTYPE_DISPLAY = "USB with usbmon headers"

#: Bits of newer versions of Wireshark: 1 the interface has a toolbar, 2 it takes a message to quit.
_CONTROL = 3


def answer(argv: list[str]) -> tuple[str, str] | None:
    """What to print for these arguments: (standard output, error sentence). None when they ask nothing.

    Unknown arguments are passed over, for newer versions of Wireshark add some.
    """
    if "--extcap-interfaces" in argv:
        return _interfaces(), ""
    if "--extcap-cleanup-postkill" in argv:
        return "", ""  # what outlives a killed capture is a relay that is in use
    if "--extcap-dlts" in argv:
        wrong = unknown_interface(value_of(argv, "--extcap-interface"))
        return ("", wrong) if wrong else (_lines([_dlt()]), "")
    if "--extcap-config" in argv:
        wrong = unknown_interface(value_of(argv, "--extcap-interface"))
        if wrong:
            return "", wrong
        from usbip_capture.extcap import dialog

        return _lines(dialog.answer(argv)), ""
    text = value_of(argv, "--extcap-capture-filter")
    if text is not None:
        return refusal(text) + "\n" if refusal(text) else "", ""
    return None


def refusal(capture_filter: str) -> str:
    """Why this capture filter cannot be used; empty when it can."""
    if not capture_filter.strip():
        return ""
    from usbip_capture.filters.language import FilterError, parse

    try:
        parse(capture_filter)
    except FilterError as error:
        return str(error)
    return ""


def unknown_interface(name: str | None) -> str:
    """The error sentence for an interface that is not ours; empty when it is ours."""
    if name == INTERFACE:
        return ""
    if not name:
        return f"no interface given: use --extcap-interface {INTERFACE}"
    from usbip_capture.live import registry
    from usbip_capture.servers.known import find_interface

    if find_interface(name) or registry.find(name) or _is_place(name):
        return ""
    return f"there is no interface {name!r} here: use --extcap-interface {INTERFACE}"


def _lines(sentences: list[str]) -> str:
    return "".join(f"{line}\n" for line in sentences)


def _interfaces() -> str:
    from usbip_capture.extcap import controls
    from usbip_capture.live import registry
    from usbip_capture.servers import refresher
    from usbip_capture.servers.known import MAX_LISTED, all_known, listed

    lines = [
        sentence("extcap", version=__version__, help=_help(), display=TITLE),
        sentence("interface", value=INTERFACE, display=INTERFACE_DISPLAY, control=_CONTROL),
    ]
    known = all_known()
    places = _places(known)
    servers = listed(known, len(places))
    shown = [(server.interface, server.display) for server in servers]
    shown += [(place.interface, place.display) for place in places[: MAX_LISTED - len(servers)]]
    lines += [sentence("interface", value=name, display=display, control=_CONTROL) for name, display in shown]
    for entry in registry.running():
        lines.append(sentence("interface", value=entry.name, display=entry.display, control=_CONTROL))
    lines += controls.sentences()
    refresher.start_if_due()
    return _lines(lines)


def _places(known: list[KnownServer]) -> list[KnownPlace]:
    """Of labgrid, where its coordinator is configured."""
    from usbip_capture.servers.configuration import coordinator

    if not coordinator():
        return []
    from usbip_capture.servers.known_places import known_places

    return known_places(known)


def _is_place(interface: str) -> bool:
    from usbip_capture.servers.configuration import coordinator

    if not coordinator():
        return False
    from usbip_capture.servers.known_places import find_place

    return find_place(interface) is not None


def _dlt() -> str:
    return sentence("dlt", number=LINKTYPE, name=LINKTYPE_NAME, display=LINKTYPE_DISPLAY)


def _help() -> str:
    """The address of the page that Wireshark's buttons Help open."""
    import os

    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "help.html").replace("\\", "/")
    return "file://" + ("" if path.startswith("/") else "/") + path.replace("%", "%25").replace(" ", "%20")
