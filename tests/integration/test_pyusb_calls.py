"""What a transfer through PyUSB costs: the calls of our Python functions on the caller's thread."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
import usb.core

from tests.calls import calls_of
from usbip_capture import get_backend
from usbip_capture.system.compiling import build

Transfer = Callable[[usb.core.Device], object]
BUFFER = array("B", bytes(64))


def write_and_read(dev: usb.core.Device) -> None:
    dev.write(0x04, b"sixteen bytes...")
    dev.read(0x84, BUFFER)


#: A transfer, and the calls that it takes; each URB of a capture takes 5 more.
TRANSFERS: dict[str, tuple[Transfer, int, int]] = {
    "control in": (lambda dev: dev.ctrl_transfer(0x80, 6, 0x0100, 0, 18), 13, 1),
    "control out": (lambda dev: dev.ctrl_transfer(0x40, 0x10, 0, 0, b"stored"), 13, 1),
    "bulk out and in": (write_and_read, 31, 2),
}
FOR_THE_CAPTURE = 5


@pytest.mark.skipif(build() == "compiled", reason="it counts the interpreter's calls")
@pytest.mark.parametrize("captured", [False, True], ids=["capture off", "capture on"])
@pytest.mark.parametrize("name", TRANSFERS)
def test_a_transfer_takes_no_more_calls_than_these(name: str, captured: bool, tmp_path: Path) -> None:
    transfer, most, urbs = TRANSFERS[name]
    with get_backend("demo", pcap=tmp_path / "calls.pcapng" if captured else None) as backend:
        dev = usb.core.find(backend=backend)
        dev.set_configuration()
        python, _ = calls_of(lambda: transfer(dev))
        ours = {name: count for name, count in python.items() if name.startswith("usbip_capture.")}
        usb.util.dispose_resources(dev)
    assert sum(ours.values()) <= most + captured * urbs * FOR_THE_CAPTURE, ours
