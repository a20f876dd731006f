"""The configuration of labgrid's exporter for what is plugged in here: each device in a group of its own, by its port.

Ref: labgrid, "Exporter Configuration": YAML, from a template of Jinja2 whose comments begin with ##
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from usbip_capture.devices import holders, uses
from usbip_capture.devices.holders import attached_from_elsewhere
from usbip_capture.devices.libusb.local_device import LocalDevice
from usbip_capture.servers.local import is_hub
from usbip_capture.system.shown import one_line

#: Serial numbers that mean the same to YAML, Jinja2 and a shell; by others no device is named.
_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_HEAD = (
    "## For usbip-capture labgrid-exporter. A place matches a device as EXPORTER/GROUP/NetworkUsbipDevice.",
    "## labgrid authenticates nobody: allow has the networks whose machines may use a device.",
)


def proposal(devices: Sequence[LocalDevice], *, by_port: bool, allow: Sequence[str]) -> Iterator[str]:
    """Lines of the configuration. by_port: devices are named by their ports also where they have serial numbers."""
    own = [device for device in devices if not is_hub(device) and not attached_from_elsewhere(device.sysfs)]
    yield from _HEAD
    for device in own:
        busid = device.info.busid
        yield ""
        yield f"## {busid}: {_description(device)}"
        if reason := _reason(device):
            yield f"## cannot be lent: {reason}"
            continue
        yield f"{json.dumps(busid)}:"
        yield "  UsbipDevice:"
        yield f"    device: {json.dumps(busid if by_port else _name(device, own))}"
        if allow:
            yield f"    allow: {json.dumps(list(allow))}"


def _name(device: LocalDevice, others: Sequence[LocalDevice]) -> str:
    """What means this device only, wherever it is plugged in; its port if nothing else does."""
    info = device.info
    alike = [other for other in others if other.info.vid_pid == info.vid_pid]
    name = f"{info.idVendor:04x}:{info.idProduct:04x}"
    if _PLAIN.fullmatch(device.serial) and sum(other.serial == device.serial for other in alike) == 1:
        return f"{name}:{device.serial}"
    return name if len(alike) == 1 else info.busid


def _description(device: LocalDevice) -> str:
    info = device.info
    return one_line(f"{info.idVendor:04x}:{info.idProduct:04x} {device.product}".strip())


def _reason(device: LocalDevice) -> str:
    """Why it cannot be lent; empty if it can."""
    vital = next((use for use in uses.uses(device.sysfs) if use.vital), None)
    if vital is not None:
        return one_line(f"it is {vital}")
    found = holders.obstacle(device.info, device.sysfs)
    return "" if found is None else one_line(str(found))
