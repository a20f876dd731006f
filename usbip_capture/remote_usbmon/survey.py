"""What the other machine has, as `scripts.survey_script` prints it: devices, usbmon, programs, what is missing. Pure.

Ref: Linux Documentation/ABI/testing/sysfs-bus-usb; Documentation/usb/usbmon.rst
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from usbip_capture.errors import DeviceNotFound, LocalProtocolError, RemoteProtocolError, ServerUnreachable, UsbipError
from usbip_capture.remote_usbmon.scripts import TOOLS
from usbip_capture.servers.address import ALL, Selector
from usbip_capture.system.shown import one_line, shell_word
from usbip_capture.usb.info import DeviceInfo, Speed

_HUB = 9
#: As /sys has it, in Mbit/s.
_SPEEDS = {
    "1.5": Speed.LOW, "12": Speed.FULL, "480": Speed.HIGH, "5000": Speed.SUPER, "10000": Speed.SUPER_PLUS,
    "20000": Speed.SUPER_PLUS,
}  # fmt: skip
_MAX_LISTED = 8


@dataclass(slots=True, frozen=True)
class RemoteDevice:
    """A device of that machine. descriptors: its device descriptor and all configurations, as its kernel has them."""

    info: DeviceInfo
    product: str = ""
    serial: str = ""
    descriptors: bytes = b""

    def __str__(self) -> str:
        return one_line(f"{self.info} {self.product}".strip())


@dataclass(slots=True)
class Survey:
    """name: as that machine is called in sentences. usbmon: bus number (0: all) to `user`, `root` or `none`."""

    name: str
    system: str = ""
    has_usb: bool = False
    tools: set[str] = field(default_factory=set)
    usbmon: dict[int, str] = field(default_factory=dict)
    carriers: list[str] = field(default_factory=list)
    devices: list[RemoteDevice] = field(default_factory=list)

    def selected(self, selectors: Sequence[Selector]) -> list[RemoteDevice]:
        """The devices that are meant; `ALL` are those that are not hubs. Raises UsbipError."""
        if self.system != "Linux" or not self.has_usb:
            lacks = f"it runs {one_line(self.system)}" if self.system != "Linux" else "its kernel has no USB"
            raise ServerUnreachable(f"{self.name} does not have usbmon, which is Linux's: {lacks}")
        usual = [device for device in self.devices if device.info.bDeviceClass != _HUB]
        if selectors is ALL or not selectors:
            found = [device for device in usual if not self.carries(device)]
            if not found:
                raise DeviceNotFound(f"{self.name} has no USB device{' but the one that ssh needs' if usual else ''}")
            return found
        return [self._one(selector, usual) for selector in selectors]

    def carries(self, device: RemoteDevice) -> bool:
        """Whether our connection comes through it: its capture would be captured again, without end."""
        return any(device.info.busid in carrier.split("/") for carrier in self.carriers)

    def tool_for(self, device: RemoteDevice, target: str) -> tuple[str, bool]:
        """What captures its bus there, and whether as root. target: what to type after `ssh`. Raises UsbipError."""
        busnum = device.info.busnum
        if not self.usbmon:
            raise UsbipError(
                f"usbmon is not loaded on {self.name}: run `ssh {target} sudo modprobe usbmon` (its kernel needs "
                "CONFIG_USB_MON)"
            )
        access = self.usbmon.get(busnum)
        if access is None:
            raise UsbipError(f"{self.name} has no /dev/usbmon{busnum} for the bus of {device}: is usbmon loaded there?")
        if access == "none":
            raise UsbipError(
                f"/dev/usbmon{busnum} of {self.name} cannot be read by the user that ssh logs in: log in as root, let "
                f"sudo run without a password, or run there: sudo chmod o+r /dev/usbmon{busnum}"
            )
        tool = next((tool for tool in TOOLS if tool in self.tools), None)
        if tool is None:
            raise UsbipError(f"{self.name} has neither tcpdump nor dumpcap: install tcpdump there")
        return tool, access == "root"

    def _one(self, selector: Selector, usual: list[RemoteDevice]) -> RemoteDevice:
        devices = self.devices if selector.busid else usual
        found = [
            device
            for device in devices
            if selector.matches(device.info) and (not selector.serial or device.serial == selector.serial)
        ]
        if len(found) == 1:
            if self.carries(found[0]):
                raise LocalProtocolError(
                    f"{found[0]} of {self.name} is the network adapter that ssh comes through: its capture would be "
                    "captured again without end; name another device, or come another way"
                )
            return found[0]
        wanted = f" {one_line(str(selector))}" if str(selector) else ""
        there = _listing(found or usual)
        if found:
            raise DeviceNotFound(f"{self.name} has several devices{wanted}: name one by its busid: {there}")
        raise DeviceNotFound(f"{self.name} has no device{wanted}: " + (f"it has {there}" if there else "plug one in"))


def parse_survey(name: str, text: str) -> Survey:
    """What was printed behind MARKER. Raises RemoteProtocolError if it is not whole."""
    survey = Survey(name)
    lines = text.split("\n")
    if "end" not in lines:
        raise RemoteProtocolError(f"{name} has answered but a part of what was asked: has its shell failed?")
    of_device: dict[str, str] | None = None
    for line in lines[: lines.index("end")]:
        key, _, value = line.partition(" ")
        if key == "device":
            _add(survey, of_device)
            of_device = {"busid": value}
        elif of_device is not None:
            of_device[key] = value.strip()
        elif key == "system":
            survey.system = value
        elif key == "usb":
            survey.has_usb = True
        elif key == "tool":
            survey.tools.add(value)
        elif key == "carrier":
            survey.carriers.append(value)
        elif key == "usbmon":
            number, _, access = value.partition(" ")
            if number.isascii() and number.isdigit():
                survey.usbmon[int(number)] = access
    _add(survey, of_device)
    return survey


def _add(survey: Survey, of_device: dict[str, str] | None) -> None:
    """The device that these attributes describe; none if they do not, as of one that is just being unplugged."""
    if of_device is None:
        return
    try:
        info = _info(of_device)
        descriptors = bytes.fromhex(of_device.get("descriptors", ""))
    except (KeyError, ValueError):
        return
    survey.devices.append(RemoteDevice(info, of_device.get("product", ""), of_device.get("serial", ""), descriptors))


def _info(found: dict[str, str]) -> DeviceInfo:
    def hexadecimal(name: str) -> int:
        return int(found.get(name) or "0", 16)

    def decimal(name: str) -> int:
        return int(found.get(name) or "0")

    busid = found["busid"]
    if shell_word(busid) != busid or "/" in busid:
        raise ValueError(busid)
    busnum, devnum = int(found["busnum"]), int(found["devnum"])
    if not (0 < busnum < 1 << 16 and 0 < devnum < 256):
        raise ValueError(busid)
    return DeviceInfo(
        busid, busnum, devnum, _SPEEDS.get(found.get("speed", ""), Speed.UNKNOWN),
        hexadecimal("idVendor") & 0xFFFF, hexadecimal("idProduct") & 0xFFFF, hexadecimal("bcdDevice") & 0xFFFF,
        hexadecimal("bDeviceClass"), hexadecimal("bDeviceSubClass"), hexadecimal("bDeviceProtocol"),
        decimal("bConfigurationValue"), decimal("bNumConfigurations"), decimal("bNumInterfaces"),
        f"/sys/bus/usb/devices/{busid}",
    )  # fmt: skip


def _listing(devices: Sequence[RemoteDevice]) -> str:
    shown = ", ".join(str(device) for device in devices[:_MAX_LISTED])
    return shown + (f" and {len(devices) - _MAX_LISTED} more" if len(devices) > _MAX_LISTED else "")
