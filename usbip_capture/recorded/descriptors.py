"""What a recording knows of a device's descriptors: from the wire, else rebuilt as far as the traffic allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from struct import pack

from usbip_capture.errors import RemoteProtocolError
from usbip_capture.recorded.conversation import Exchange, RecordedDevice
from usbip_capture.recorded.exchanges import Exchanges, indexed
from usbip_capture.usb.descriptors import (
    ConfigurationDescriptor,
    DeviceDescriptor,
    EndpointDescriptor,
    parse_configuration,
)
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo, Speed
from usbip_capture.usb.setup import (
    DT_CONFIGURATION,
    DT_DEVICE,
    DT_DEVICE_QUALIFIER,
    DT_STRING,
    GET_DESCRIPTOR,
    SET_CONFIGURATION,
)
from usbip_capture.usb.urb import DIR_IN, TransferType

_DEVICE_SIZE = 18
_VENDOR_SPECIFIC = 0xFF
#: bmAttributes of an endpoint by its transfer type. Ref: USB 2.0, table 9-13
_ATTRIBUTES = {
    TransferType.CONTROL: 0,
    TransferType.ISOCHRONOUS: 1,
    TransferType.BULK: 2,
    TransferType.INTERRUPT: 3,
}


@dataclass(slots=True)
class RecordedDescriptors:
    """answers: what GET_DESCRIPTOR has brought, the longest by bmRequestType, wValue and wIndex.

    device, configurations: whole and valid, rebuilt where the recording has them not. missing: sentences about that.
    varying: those of `answers`, strings as a rule, that were not the same each time. cut: the lengths of those that the
    capture has a part of.
    """

    device: bytes
    configurations: list[bytes]
    answers: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    varying: set[tuple[int, int, int]] = field(default_factory=set)
    cut: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def string(self, place: int) -> str:
        """The string whose number is at `place` of the device descriptor, in the first language; empty if not read."""
        number = self.device[place]
        for (kind, value, language), raw in self.answers.items():
            if number and language and (kind, value) == (DIR_IN, DT_STRING << 8 | number):
                return raw[2 : raw[0]].decode("utf-16-le", "replace")
        return ""

    @property
    def parsed(self) -> list[ConfigurationDescriptor]:
        """The configurations."""
        return [parse_configuration(raw) for raw in self.configurations]


def descriptors_of(device: RecordedDevice) -> RecordedDescriptors:
    """Those of a recorded device."""
    exchanges = indexed(device.exchanges)
    known = RecordedDescriptors(b"", [])
    _read_answers(known, exchanges)
    answers, missing, configurations = known.answers, known.missing, known.configurations
    index = 0
    while (raw := answers.get((DIR_IN, DT_CONFIGURATION << 8 | index, 0))) is not None:
        configurations.append(_configuration(raw, index, exchanges, missing))
        index += 1
    if not configurations:
        missing.append(
            "the configuration descriptor is not in the recording: rebuilt from the endpoints that were used"
        )
        configurations.append(_rebuilt(exchanges, _used_configuration(exchanges)))
    head = answers.get((DIR_IN, DT_DEVICE << 8, 0), b"")
    if len(head) < _DEVICE_SIZE:
        missing.append("the device descriptor is not in the recording: rebuilt")
        head = _device(device, len(configurations))
    missing += _foreign(exchanges, configurations)
    known.device = head[:_DEVICE_SIZE]
    return known


def info_of(device: RecordedDevice, known: RecordedDescriptors, busid: str) -> DeviceInfo:
    """What a server reports of such a device: as it is before a client configures it."""
    head, first = DeviceDescriptor.parse(known.device), known.parsed[0]
    interfaces = tuple(
        InterfaceInfo(i.bInterfaceClass, i.bInterfaceSubClass, i.bInterfaceProtocol)
        for i in first.interfaces
        if not i.bAlternateSetting
    )
    return DeviceInfo(
        busid, device.bus or 1, device.number or 1, speed_of(known, device.intervals),
        head.idVendor, head.idProduct, head.bcdDevice, head.bDeviceClass, head.bDeviceSubClass, head.bDeviceProtocol,
        0, len(known.configurations), len(interfaces),
        f"/sys/devices/replayed/{busid}", interfaces,
    )  # fmt: skip


def speed_of(known: RecordedDescriptors, intervals: Mapping[int, int]) -> Speed:
    """The speed that the descriptors, and the intervals of interrupt endpoints, speak of: it is not in a capture.

    Ref: USB 2.0, 5.8.3 (bulk packets), 5.5.3, 9.6.1, 9.6.2 (device qualifier), 9.6.6 (bInterval); USB 3.2, 9.6.1
    """
    head = DeviceDescriptor.parse(known.device)
    if head.bcdUSB >= 0x0300:
        return Speed.SUPER
    endpoints = [e for c in known.parsed for i in c.interfaces for e in i.endpoints]
    bulk = [e.wMaxPacketSize & 0x7FF for e in endpoints if e.bmAttributes & 3 == _ATTRIBUTES[TransferType.BULK]]
    if bulk:
        return Speed.HIGH if max(bulk) > 64 else Speed.FULL
    for endpoint in endpoints:
        interval = intervals.get(endpoint.bEndpointAddress, 0)
        # In microframes it is 2 to the power of bInterval - 1, where that is not too long; in frames at most bInterval.
        if interval and endpoint.bmAttributes & 3 == 3 and 3 <= endpoint.bInterval <= 14:
            if interval == 1 << endpoint.bInterval - 1:
                return Speed.HIGH
            return Speed.LOW if _is_low_speed(head, endpoints) else Speed.FULL
    if (DIR_IN, DT_DEVICE_QUALIFIER << 8, 0) in known.answers or any(e.wMaxPacketSize > 1023 for e in endpoints):
        return Speed.HIGH
    return Speed.LOW if _is_low_speed(head, endpoints) else Speed.FULL


def _is_low_speed(head: DeviceDescriptor, endpoints: Sequence[EndpointDescriptor]) -> bool:
    small = all(e.bmAttributes & 3 == 3 and e.wMaxPacketSize <= 8 for e in endpoints)
    return small and head.bMaxPacketSize0 == 8 and head.bcdUSB <= 0x0110


def _read_answers(made: RecordedDescriptors, exchanges: Exchanges) -> None:
    """What GET_DESCRIPTOR has brought."""
    found = made.answers
    for exchange in exchanges.standard_requests():
        setup = exchange.setup
        if setup[1] == GET_DESCRIPTOR and setup[0] & DIR_IN and not exchange.status:
            key = (setup[0], setup[2] | setup[3] << 8, setup[4] | setup[5] << 8)
            known, data = found.get(key, b""), exchange.data
            common = min(len(known), len(data))
            if known[:common] != data[:common] and key[1] >> 8 not in (DT_DEVICE, DT_CONFIGURATION):
                made.varying.add(key)
            if exchange.cut:
                made.cut[key] = max(exchange.moved, made.cut.get(key, 0))
            if len(data) > len(known):
                found[key] = data
    # Systems read once which languages there are, libusb before each string.
    languages = dict.fromkeys(language for kind, value, language in found if value >> 8 == DT_STRING and language)
    if languages and (DIR_IN, DT_STRING << 8, 0) not in found:
        raw = b"".join(language.to_bytes(2, "little") for language in languages)
        found[DIR_IN, DT_STRING << 8, 0] = bytes((2 + len(raw), DT_STRING)) + raw


def _foreign(exchanges: Exchanges, configurations: Sequence[bytes]) -> list[str]:
    """A sentence if endpoints were used that the descriptors do not have."""
    described = {
        (e.bEndpointAddress, e.bmAttributes & 3)
        for raw in configurations
        for interface in parse_configuration(raw).interfaces
        for e in interface.endpoints
    }
    used = {(address, _ATTRIBUTES[one.transfer_type]) for address, one in exchanges.endpoints.items() if address & 0x0F}
    names = ", ".join(f"{address:#04x}" for address, _ in sorted(used - described))
    whose = "they may be of a device that had this number before"
    return [f"the descriptors do not have endpoints that were used, {names}: {whose}"] if names else []


def _configuration(raw: bytes, index: int, exchanges: Exchanges, missing: list[str]) -> bytes:
    """A configuration of the wire, if it is whole and can be parsed."""
    total = int.from_bytes(raw[2:4], "little") if len(raw) >= 4 else 0
    try:
        if 9 <= total <= len(raw) and parse_configuration(raw[:total]).interfaces:
            return raw[:total]
    except RemoteProtocolError:
        pass
    missing.append(
        f"configuration {index} is not in the recording as a whole: rebuilt from the endpoints that were used"
    )
    value = raw[5] if len(raw) > 5 else _used_configuration(exchanges)
    return _rebuilt(exchanges, value)


def _used_configuration(exchanges: Exchanges) -> int:
    found = configuring(exchanges)
    return 1 if found is None else found.setup[2] or 1


def configuring(exchanges: Exchanges) -> Exchange | None:
    """The first request that configures the device."""
    wanted = bytes((0, SET_CONFIGURATION))
    return next((one for one in exchanges.standard_requests() if one.setup[:2] == wanted), None)


def _rebuilt(exchanges: Exchanges, value: int) -> bytes:
    """A configuration with one interface that has each endpoint which was used."""
    used = {address: one for address, one in exchanges.endpoints.items() if address & 0x0F}
    body = bytes((9, 4, 0, 0, len(used), _VENDOR_SPECIFIC, 0, 0, 0))
    for address, one in sorted(used.items()):
        kind = one.transfer_type
        size = 512 if kind == TransferType.BULK else max(8, min(one.longest, 64))
        body += pack("<BBBBHB", 7, 5, address, _ATTRIBUTES[kind], size, 0 if kind == TransferType.BULK else 4)
    return pack("<BBHBBBBB", 9, 2, 9 + len(body), 1, value, 0, 0x80, 50) + body


def _device(device: RecordedDevice, configurations: int) -> bytes:
    vid, pid = device.vid_pid or (0, 0)
    return pack("<BBHBBBBHHHBBBB", 18, 1, 0x0200, 0, 0, 0, 64, vid, pid, 0x0100, 0, 0, 0, configurations)
