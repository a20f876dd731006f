"""What a server exports, as text and for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from usbip_capture.describe.naming import class_names, listed_name, speed_name, version
from usbip_capture.errors import UsbipError
from usbip_capture.servers.address import DEMO, LOCAL, Selector, ServerAddress
from usbip_capture.servers.known import KnownDevice, known_servers, read_cache
from usbip_capture.system.shown import one_line
from usbip_capture.usb.info import DeviceInfo

if TYPE_CHECKING:
    from usbip_capture.capture.writer import PcapWriter
    from usbip_capture.describe.reading import Description
    from usbip_capture.devices.libusb.local_device import LocalDevice


@dataclass(slots=True)
class Listed:
    """A server's list. error: why there is none. problems: devices that could not be described.

    names, serials: what devices call themselves, and their serial numbers, by busid. hub_ports: how many each hub has,
    where that is known.
    """

    server: ServerAddress
    devices: list[DeviceInfo]
    error: UsbipError | None = None
    names: dict[str, str] = field(default_factory=dict)
    serials: dict[str, str] = field(default_factory=dict)
    hub_ports: dict[str, int] = field(default_factory=dict)
    descriptions: dict[str, Description] = field(default_factory=dict)
    problems: list[UsbipError] = field(default_factory=list)

    def name(self, info: DeviceInfo) -> str:
        """What the device is called; empty if nobody knows."""
        return self.names.get(info.busid) or listed_name(*info.vid_pid)


def name_devices(listed: Listed) -> None:
    """Names that the devices gave themselves when they were last read; and the list is remembered."""
    from usbip_capture.servers import memory

    server = listed.server
    if server.host == DEMO:
        from usbip_capture.demo import device as demo

        _, product, serial = demo.DESCRIPTORS.strings[:3]
        listed.names[demo.BUSID], listed.serials[demo.BUSID] = product, serial
        return
    if server.host == LOCAL:
        from usbip_capture.servers import local

        name_local_devices(listed, local.devices())
        listed.hub_ports = local.hub_ports()
        return
    if server.is_recording:
        from usbip_capture.servers.recording_host import names_in_recording

        for busid, (product, serial) in names_in_recording(server.host).items():
            listed.names[busid], listed.serials[busid] = product, serial
        return
    key = server.place
    known = {(d.busid, d.vid_pid): d for d in read_cache().devices.get(key, [])}
    for info in listed.devices:
        device = known.get((info.busid, _vid_pid(info)))
        if device is not None:
            listed.names[info.busid] = device.name
            listed.serials[info.busid] = device.serial
    memory.remember_server(*key)
    memory.remember_devices(*key, [KnownDevice(info.busid, _vid_pid(info)) for info in listed.devices])


def name_local_devices(listed: Listed, devices: list[LocalDevice]) -> None:
    """As the system has read them when they were plugged in."""
    for device in devices:
        listed.names[device.info.busid] = device.product
        listed.serials[device.info.busid] = device.serial


def describe_local_devices(listed: Listed, devices: list[LocalDevice]) -> None:
    """As far as they are known without asking them."""
    from usbip_capture.describe.unopened import describe_unopened

    for device in devices:
        try:
            listed.descriptions[device.info.busid] = describe_unopened(device)
        except UsbipError as error:
            listed.problems.append(UsbipError(f"device {device.info} cannot be described: {error}"))


def describe(listed: Listed, writer: PcapWriter | None) -> None:
    """Import each device and read its descriptors; those of this machine only if that is to be captured."""
    if listed.server.host == LOCAL and writer is None:
        from usbip_capture.servers import local

        describe_local_devices(listed, local.devices())
        return
    from usbip_capture.cli.session import imported, remember
    from usbip_capture.describe.reading import read_description

    for info in listed.devices:
        try:
            with imported(listed.server, Selector(busid=info.busid), writer) as device:
                found = read_description(device.handle)
                listed.descriptions[info.busid] = found
                product = found.strings.get(found.device.iProduct, "")
                serial = found.strings.get(found.device.iSerialNumber, "")
                if product or serial:
                    listed.names[info.busid], listed.serials[info.busid] = product, serial
                    remember(listed.server, device.remote, product, serial)
        except UsbipError as error:
            listed.problems.append(error)


def lines(listed: Listed, *, tree: bool = False, verbose: bool = False) -> list[str]:
    """The server, and its devices below."""
    called = server_name(listed.server)
    shown = [f"{called} ({listed.server}):" if called else f"{listed.server}:"]
    if tree:
        from usbip_capture.describe.tree import tree as drawn

        return shown + drawn(listed.devices, listed.name, listed.hub_ports)
    if verbose:
        from usbip_capture.describe.verbose import verbose as described

        for info in listed.devices:
            found = listed.descriptions.get(info.busid)
            shown += ["", *(described(found) if found else [_row(listed, info, 0).strip()])]
        return shown
    width = max((len(one_line(info.busid)) for info in listed.devices), default=0)
    return shown + [_row(listed, info, width) for info in listed.devices]


def _row(listed: Listed, info: DeviceInfo, width: int) -> str:
    name = listed.name(info) or "(unknown)"
    classes = ", ".join(class_names(info))
    serial = f", {listed.serials[info.busid]}" if listed.serials.get(info.busid) else ""
    about = f"{_vid_pid(info)}  {speed_name(info.speed):>5}  {name}{serial}  [{classes}]"
    return f"  {one_line(info.busid):{width}}  {about}"


def server_name(server: ServerAddress) -> str:
    """What the server is called in the configuration, or calls itself; empty if it is its host."""
    name = next((known.name for known in known_servers() if (known.host, known.port) == server.place), "")
    return "" if name == server.host else name


def as_json(listed: Listed) -> dict[str, object]:
    """A server's list for scripts."""
    server = listed.server
    return {
        "server": str(server),
        "name": server_name(server),
        "host": server.place[0],
        "port": port_json(server),
        "error": None if listed.error is None else str(listed.error),
        "devices": devices_json(listed),
        "problems": [str(error) for error in listed.problems],
    }


def port_json(server: ServerAddress) -> int | None:
    """Its TCP port for scripts; None for this machine, which has none."""
    return None if server.host == LOCAL else server.port


def devices_json(listed: Listed) -> list[dict[str, object]]:
    """Its devices for scripts."""
    return [_device_json(listed, info) for info in listed.devices]


def _device_json(listed: Listed, info: DeviceInfo) -> dict[str, object]:
    made: dict[str, object] = {
        "busid": info.busid,
        "bus": info.busnum,
        "device": info.devnum,
        "vid_pid": _vid_pid(info),
        "idVendor": info.idVendor,
        "idProduct": info.idProduct,
        "name": listed.name(info),
        "serial_number": listed.serials.get(info.busid, ""),
        "speed": speed_name(info.speed),
        "classes": class_names(info),
        "bcdDevice": info.bcdDevice,
        "version": version(info.bcdDevice),
        "interfaces": [asdict(interface) for interface in info.interfaces],
    }
    found = listed.descriptions.get(info.busid)
    if found is not None:
        made["descriptors"] = description_json(found)
    return made


def description_json(found: Description) -> dict[str, object]:
    """Descriptors for scripts: fields by their names in the USB specification, bytes in hexadecimal."""
    plain = {
        "device": asdict(found.device),
        "configurations": [asdict(configuration) for configuration in found.configurations],
        "active": found.active,
        "strings": {str(index): text for index, text in sorted(found.strings.items())},
        "bos": found.bos,
        "device_qualifier": found.qualifier,
        "hid_reports": {str(number): raw for number, raw in found.reports.items()},
        "status": found.status,
    }
    return {key: _without_bytes(value) for key, value in plain.items()}


def _without_bytes(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: _without_bytes(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_bytes(entry) for entry in value]
    return value


def _vid_pid(info: DeviceInfo) -> str:
    return "{:04x}:{:04x}".format(*info.vid_pid)
