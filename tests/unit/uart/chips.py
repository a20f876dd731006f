"""Descriptors of real adapters, shortened to what finds their ports, and what a driver asks for, as bytes."""

from __future__ import annotations

from collections.abc import Iterable

from usbip_capture.uart.driver import Driver, Request
from usbip_capture.uart.ports import Port, find_ports
from usbip_capture.usb.descriptors import ConfigurationDescriptor, DeviceDescriptor, parse_configuration
from usbip_capture.usb.info import Speed


def device(vendor: int, product: int, release: int = 0x0100, kind: int = 0) -> DeviceDescriptor:
    return DeviceDescriptor(18, 1, 0x0200, kind, 0, 0, 64, vendor, product, release, 1, 2, 3, 1)


def configuration(*descriptors: str) -> ConfigurationDescriptor:
    body = bytes.fromhex("".join(descriptors))
    numbers = {body[at + 2] for at in _starts(body) if body[at + 1] == 4}
    head = b"\x09\x02" + (9 + len(body)).to_bytes(2, "little") + bytes([len(numbers), 1, 0, 0x80, 50])
    return parse_configuration(head + body)


def _starts(body: bytes) -> Iterable[int]:
    at = 0
    while at < len(body):
        yield at
        at += body[at]


def vendor_port(number: int, packet: int = 64, interrupt: str = "") -> str:
    """A vendor specific interface with bulk endpoints, and an interrupt endpoint if asked for."""
    size = packet.to_bytes(2, "little").hex()
    one = 2 * number + 1
    return (
        f"09 04 {number:02x} 00 {3 if interrupt else 2:02x} ff ff ff 00"
        f"07 05 {0x80 | one:02x} 02 {size} 00 07 05 {one + 1:02x} 02 {size} 00 {interrupt}"
    )


ACM = (
    "08 0b 00 02 02 02 01 00"
    "09 04 00 00 01 02 02 01 00 05 24 00 1001 05 24 01 00 01 04 24 02 06 05 24 06 00 01"
    "07 05 81 03 0800 10"
    "09 04 01 00 02 0a 00 00 00 07 05 02 02 4000 00 07 05 82 02 4000 00"
)
CH340 = vendor_port(0, 32, "07 05 81 03 0800 01").replace("07 05 81 02", "07 05 82 02", 1)


def only_port(found: DeviceDescriptor, *descriptors: str, speed: Speed = Speed.FULL) -> Port:
    (port,) = find_ports(found, configuration(*descriptors), speed)
    return port


def asked(requests: Iterable[Request]) -> list[str]:
    """Each request as the hex of its setup packet, and of its data after a space."""
    return [f"{r.setup.pack().hex()} {r.data.hex()}".strip() for r in requests]


def answer(driver: Driver, requests: Iterable[Request], *answers: str) -> None:
    """Give a driver the answers to those of its requests that read."""
    reading = [request for request in requests if request.reads]
    assert len(reading) == len(answers)
    for request, text in zip(reading, answers, strict=True):
        driver.answered(request, bytes.fromhex(text))
