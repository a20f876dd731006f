"""The options dialog: one sentence for each option, and the list of devices with its button Reload.

Ref: Wireshark 4.0, doc/extcap.adoc; extcap_parser.c, ui/qt/extcap_argument.cpp for what is really read
"""

from __future__ import annotations

from usbip_capture.extcap.grammar import sentence, value_of
from usbip_capture.options.option import BOOLEAN, FILESELECT, MULTICHECK, SELECTOR, Option
from usbip_capture.options.table import INTERFACE, OPTIONS
from usbip_capture.servers.configuration import place_of
from usbip_capture.servers.known import KnownDevice, KnownServer, find_interface, read_cache

#: Options that a server's own interface does not have: they are fixed there.
FIXED = ("host", "port")
#: Options that a place of labgrid does not have: its device is fixed, too.
FIXED_OF_PLACE = (*FIXED, "device", "devices")
#: Options that a running relay's interface has: the others are fixed there, or mean nothing.
OF_RELAY = ("snaplen", "duration", "count", "record-unlinks", "log-level", "log-file")
#: Options that the interface of a server has that is joined by its dashboard: the others are for other modes.
OF_SERVER = ("device", "devices", "token", "reconnect", *OF_RELAY)
#: Seconds that Reload may take: Wireshark's window stands still meanwhile.
_RELOAD_TIMEOUT = 1.0
#: In the place of check boxes, which no button reloads.
_NONE_KNOWN = "(none known yet: Reload, Save, open this again)"
#: Characters of a product or serial number that are shown: a device may have names that are wider than the screen.
_SHOWN = 48


def answer(argv: list[str]) -> list[str]:
    """The whole dialog of an interface, or one list again when it is to be reloaded."""
    name = value_of(argv, "--extcap-interface") or INTERFACE
    server = None if name == INTERFACE else find_interface(name)
    reload = value_of(argv, "--extcap-reload-option")
    if reload is not None:
        return _reloaded(argv, reload, server)
    lines = []
    listed: _Listed | None = None
    own = _options_of(name, server)
    for number, option in enumerate(OPTIONS):
        if option.name in own:
            lines.append(_argument(number, option))
            choices = option.choices
            if _is_listed(option):
                listed = listed or _Listed(name, server)
                choices = listed.choices(option)
            lines += _values(number, option, choices)
    return lines


def _options_of(interface: str, server: KnownServer | None) -> set[str]:
    """The names of those that an interface has."""
    every = {option.name for option in OPTIONS}
    if interface == INTERFACE:
        return every
    if server is not None:
        return set(OF_SERVER) if server.is_dashboard else every.difference(FIXED)
    from usbip_capture.servers.known_places import find_place

    return every.difference(FIXED_OF_PLACE) if find_place(interface) else set(OF_RELAY)


def _argument(number: int, option: Option) -> str:
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
    if option.validation and option.kind != SELECTOR:
        parts["validation"] = option.validation
    if option.kind == FILESELECT:
        parts["mustexist"] = "false"
    if option.reload:
        parts["reload"] = "true"
    parts["group"] = option.group
    return sentence("arg", **parts)


def _values(number: int, option: Option, choices: tuple[tuple[str, str], ...]) -> list[str]:
    lines = []
    if not choices and option.kind == MULTICHECK:
        lines.append(sentence("value", arg=number, value="", display=_NONE_KNOWN, enabled="false"))
    for value, display in choices:
        chosen = {"default": "true"} if value == option.default else {}
        if option.kind == MULTICHECK:  # Wireshark 4.0 takes one that is not enabled for one that nobody may check
            chosen["enabled"] = "true"
        lines.append(sentence("value", arg=number, value=value, display=display, **chosen))
    return lines


# -- devices


class _Listed:
    """The devices to choose from: the last listing, and what is stored, which the dialog would drop otherwise."""

    def __init__(self, interface: str, server: KnownServer | None) -> None:
        from usbip_capture.extcap.preferences import stored

        self._stored = stored(interface, ("host", "port", *(o.preference for o in OPTIONS if _is_listed(o))))
        if server is not None:
            keys = [(server.host, server.port)]
        else:
            ports = [port for port in self._stored["port"] or ["3240"] if port.isascii() and port.isdigit()]
            keys = [_key(host, int(port)) for host in self._stored["host"] for port in ports]
        listings = read_cache().devices
        self._devices = [device for key in dict.fromkeys(keys) for device in listings.get(key, [])]

    def choices(self, option: Option) -> tuple[tuple[str, str], ...]:
        """Value and display of each."""
        chosen = self._stored[option.preference]
        if option.kind == MULTICHECK:
            chosen = [part.strip() for text in chosen for part in text.split(",")]
        return _with_chosen(option, self._devices, chosen)


def _is_listed(option: Option) -> bool:
    return option.reload or option.kind == MULTICHECK


def _key(host: str, port: int) -> tuple[str, int]:
    """Where the cache has the server that is called so: as `ServerAddress.parse` reads it. Raises nothing."""
    try:
        return place_of(host, port)
    except ValueError:  # LocalProtocolError, which is not imported for this
        return host, port


def _with_chosen(option: Option, devices: list[KnownDevice], chosen: list[str]) -> tuple[tuple[str, str], ...]:
    choices = dict(option.choices)
    for device in devices:
        choices.setdefault(device.busid, _display(device))
    for value in chosen:
        if value:
            choices.setdefault(value, f"{value} (chosen before)")
    return tuple(choices.items())


def _display(device: KnownDevice) -> str:
    """What distinguishes a device from others: those of one kind differ in their serial numbers."""
    parts = device.busid, device.vid_pid, _short(device.name or device.kind), _short(device.serial)
    return "   ".join(part for part in parts if part)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _reloaded(argv: list[str], name: str, server: KnownServer | None) -> list[str]:
    """The list of devices as the server has it now; what went wrong is an item of it, which stands for `auto`."""
    for number, option in enumerate(OPTIONS):
        if option.reload and name in (option.name, option.preference):
            from usbip_capture.extcap.listing import list_at_dashboard, list_devices

            host = server.address if server else value_of(argv, "--host") or ""
            port = str(server.port) if server else value_of(argv, "--port") or "3240"
            if server.is_dashboard if server else value_of(argv, "--mode") == "server":
                token = value_of(argv, "--token") or ""
                devices, problem = list_at_dashboard(server or host, port, token, _RELOAD_TIMEOUT)
            else:
                devices, problem = list_devices(host, port, _RELOAD_TIMEOUT, value_of(argv, "--mode") or "")
            chosen = value_of(argv, option.flag) or ""
            choices = _with_chosen(option, devices, [chosen])
            if problem:  # in the place of `auto`, for that is what the box shows then
                choices = tuple((v, f"({problem})" if v == option.default else d) for v, d in choices)
            return _values(number, option, choices)
    return []
