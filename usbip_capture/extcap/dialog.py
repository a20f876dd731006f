"""The options dialog: one sentence for each option, and the list of devices with its button Reload.

Ref: Wireshark 4.0, doc/extcap.adoc; extcap_parser.c, ui/qt/extcap_argument.cpp for what is really read
"""

from __future__ import annotations

from usbip_capture.extcap.argv import value_of
from usbip_capture.extcap.sentences import sentence
from usbip_capture.options.option import BOOLEAN, FILESELECT, SELECTOR, Option
from usbip_capture.options.table import INTERFACE, OPTIONS
from usbip_capture.servers.known import KnownDevice, KnownServer, find_interface, read_cache

#: Options that a server's own interface does not have: they are fixed there.
FIXED = ("host", "port")
#: Options that a running relay's interface has: the others are fixed there, or mean nothing.
OF_RELAY = ("snaplen", "duration", "count", "record-unlinks", "log-level", "log-file")
#: Seconds that Reload may take: Wireshark's window stands still meanwhile.
_RELOAD_TIMEOUT = 1.0


def answer(argv: list[str]) -> list[str]:
    """The whole dialog of an interface, or one list again when it is to be reloaded."""
    name = value_of(argv, "--extcap-interface") or INTERFACE
    server = None if name == INTERFACE else find_interface(name)
    reload = value_of(argv, "--extcap-reload-option")
    if reload is not None:
        return _reloaded(argv, reload, server)
    lines = []
    relayed = name != INTERFACE and server is None
    for number, option in enumerate(OPTIONS):
        if option.name in OF_RELAY if relayed else server is None or option.name not in FIXED:
            lines.append(_argument(number, option))
            choices = _devices(option, name, server) if option.reload else option.choices
            lines += _values(number, option, choices)
    return lines


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
    for value, display in choices:
        chosen = {"default": "true"} if value == option.default else {}
        lines.append(sentence("value", arg=number, value=value, display=display, **chosen))
    return lines


# -- devices


def _devices(option: Option, interface: str, server: KnownServer | None) -> tuple[tuple[str, str], ...]:
    """The last listing, and what is chosen now, which the dialog would drop if it were not there."""
    from usbip_capture.extcap.preferences import stored

    if server is not None:
        keys = [(server.host, server.port)]
    else:
        ports = stored(interface, "port") or ["3240"]
        keys = [(host, int(port)) for host in stored(interface, "host") for port in ports if port.isdigit()]
    listings = read_cache().devices
    devices = [device for key in keys for device in listings.get(key, [])]
    return _with_chosen(option, devices, stored(interface, option.preference))


def _with_chosen(option: Option, devices: list[KnownDevice], chosen: list[str]) -> tuple[tuple[str, str], ...]:
    choices = list(option.choices)
    choices += [(device.busid, _display(device)) for device in devices]
    for value in chosen:
        if value and all(value != known for known, _ in choices):
            choices.append((value, f"{value} (chosen before)"))
    return tuple(choices)


def _display(device: KnownDevice) -> str:
    return "   ".join(filter(None, (device.busid, device.vid_pid, device.name, device.serial)))


def _reloaded(argv: list[str], name: str, server: KnownServer | None) -> list[str]:
    """The list of devices as the server has it now; what went wrong is an item of it, which stands for `auto`."""
    for number, option in enumerate(OPTIONS):
        if option.reload and name in (option.name, option.preference):
            from usbip_capture.extcap.listing import list_devices

            host = server.host if server else value_of(argv, "--host") or ""
            port = str(server.port) if server else value_of(argv, "--port") or "3240"
            devices, problem = list_devices(host, port, _RELOAD_TIMEOUT)
            chosen = value_of(argv, option.flag) or ""
            choices = _with_chosen(option, devices, [chosen])
            if problem:  # in the place of `auto`, for that is what the box shows then
                choices = tuple((v, f"({problem})" if v == option.default else d) for v, d in choices)
            return _values(number, option, choices)
    return []
