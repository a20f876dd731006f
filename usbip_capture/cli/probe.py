"""`usbip-capture probe`: imports a device, reads what it is, releases it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import (
    add_command,
    add_device,
    add_json,
    add_old_name,
    add_recording,
    add_server,
    add_transfer_timeout,
)
from usbip_capture.cli.hexdump import hexdump
from usbip_capture.cli.session import chosen_device, chosen_server, imported, recording, remember, transfer_timeout
from usbip_capture.cli.terminal import print_lines
from usbip_capture.cli.values import MAX_WAIT, number, wait
from usbip_capture.usb.setup import DT_DEVICE, get_descriptor

if TYPE_CHECKING:
    from usbip_capture.cli.session import Imported
    from usbip_capture.describe.reading import Description

_EXAMPLES = """\
  usbip-capture probe demo                                     the only device
  usbip-capture probe pi 1-1.2                                 or --device 1-1.2
  usbip-capture probe pi --serial-number 123456                of several that are alike
  usbip-capture probe --host pi --vid 0x303a --pid 0x4004 --get-device-desc
  usbip-capture probe demo --pcap probe.pcapng                 and capture how it is read
  usbip-capture probe demo --json | jq .descriptors.strings
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "probe",
        "read a device and report what it is",
        "Import a device, read its descriptors and strings, and release it.",
        _EXAMPLES,
    )
    add_server(parser)
    add_device(parser)
    parser.add_argument(
        "--get-device-desc", action="store_true", help="also read the device descriptor by itself, and show its bytes"
    )
    add_control_timeout(parser)
    add_json(parser)
    add_recording(parser)
    parser.set_defaults(run=run)


def add_control_timeout(parser: argparse.ArgumentParser) -> None:
    """For each control transfer; and its old spellings."""
    add_transfer_timeout(parser, 1.0)
    add_old_name(parser, "--ctrl-timeout-ms", "--transfer-timeout", _in_milliseconds, metavar="MS")
    add_old_name(parser, "--timeout", "--connect-timeout", wait)


def _in_milliseconds(text: str) -> float:
    return number(text, 0, MAX_WAIT * 1000) / 1000


def run(args: argparse.Namespace) -> int:
    """Print what the device is; the exit code. Raises UsbipError."""
    from usbip_capture.describe.reading import read_description

    server, selector = chosen_server(args), chosen_device(args)
    raw = b""
    with recording(args, [server]) as writer, imported(server, selector, writer) as device:
        if args.get_device_desc:
            raw = device.control(get_descriptor(DT_DEVICE, 0, 0, 18), b"", transfer_timeout(args))
        found = read_description(device.handle)
        product, serial = (found.strings.get(i, "") for i in (found.device.iProduct, found.device.iSerialNumber))
        remember(server, device.remote, product, serial)
    if args.json:
        print(json.dumps(_as_json(device, found, raw), indent=2))
        return DONE
    print_lines(summary(device, found))
    if raw:
        print_lines(["", "device descriptor:", *hexdump(raw)])
    return DONE


def summary(device: Imported, found: Description) -> list[str]:
    """What a person wants to know first: who it is, and what endpoints it has."""
    from usbip_capture.describe.naming import class_name, listed_name, speed_name, version

    d, info = found.device, found.info
    strings = {name: found.strings.get(index, "") for name, index in _strings(found).items()}
    lines = [
        f"device         {info.busid} of {device.server}, {speed_name(info.speed)}",
        f"VID:PID        {d.idVendor:04x}:{d.idProduct:04x}  {listed_name(d.idVendor, d.idProduct)}".rstrip(),
        *(f"{name:14} {text}" for name, text in strings.items() if text),
        f"USB            {version(d.bcdUSB)}, device version {version(d.bcdDevice)}",
        f"configuration  {found.active} of {d.bNumConfigurations}",
    ]
    for configuration in found.configurations:
        if configuration.bConfigurationValue != found.active:
            continue
        for interface in configuration.interfaces:
            name = found.strings.get(interface.iInterface, "") if interface.iInterface else ""
            setting = f".{interface.bAlternateSetting}" if interface.bAlternateSetting else ""
            kind = class_name(interface.bInterfaceClass)
            lines.append(f"interface {f'{interface.bInterfaceNumber}{setting}':4} {kind}  {name}".rstrip())
            lines += [_endpoint(e.bEndpointAddress, e.bmAttributes, e.wMaxPacketSize) for e in interface.endpoints]
    return lines


def _endpoint(address: int, attributes: int, size: int) -> str:
    kind = ("control", "isochronous", "bulk", "interrupt")[attributes & 3]
    return f"               {address:#04x}  {kind} {'IN' if address & 0x80 else 'OUT'}, {size & 0x7FF} bytes"


def _strings(found: Description) -> dict[str, int]:
    d = found.device
    return {"manufacturer": d.iManufacturer, "product": d.iProduct, "serial number": d.iSerialNumber}


def _as_json(device: Imported, found: Description, raw: bytes) -> dict[str, object]:
    from usbip_capture.cli.listing import description_json, port_json
    from usbip_capture.describe.naming import listed_name, speed_name, version

    product = found.strings.get(found.device.iProduct, "")
    made: dict[str, object] = {
        "server": str(device.server),
        "host": device.server.place[0],
        "port": port_json(device.server),
        "busid": found.info.busid,
        "vid_pid": "{:04x}:{:04x}".format(*found.info.vid_pid),
        "idVendor": found.info.idVendor,
        "idProduct": found.info.idProduct,
        "name": product or listed_name(*found.info.vid_pid),
        "speed": speed_name(found.info.speed),
        "bcdDevice": found.device.bcdDevice,
        "version": version(found.device.bcdDevice),
        **{name.replace(" ", "_"): found.strings.get(index) for name, index in _strings(found).items()},
        "descriptors": description_json(found),
    }
    if raw:
        made["device_descriptor"] = raw.hex()
    return made
