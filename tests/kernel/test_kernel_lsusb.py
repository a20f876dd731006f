"""`list -v` against the `lsusb -v` of the guest that has the devices."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.test_lsusb_verbose import lines
from tests.kernel.conftest import Plug
from tests.kernel.rig.guest import Guest
from usbip_capture.describe.reading import read_description
from usbip_capture.describe.verbose import verbose
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.servers.address import Selector, ServerAddress

_REPORT = re.compile(r" +(Report Descriptor|Item\(|\*\* UNAVAILABLE)| {28}")


@pytest.mark.parametrize(
    ("kind", "bus"),
    [
        ("serial", "uhci"),
        ("net", "xhci"),
        ("ccid", "xhci"),
        ("storage", "xhci"),
        ("storage", "xhci-ss"),
        ("kbd", "uhci"),
        ("mouse", "xhci"),
    ],
)
def test_as_lsusb_prints_it(guest: Guest, plug: Plug, disk: Path, kind: str, bus: str) -> None:
    busid = plug(kind, bus, file=disk if kind == "storage" else None)
    server = ServerAddress("127.0.0.1", guest.usbip_port)
    info = server.find(Selector(busid))
    theirs = guest.run(f"lsusb -v -s {info.busnum}:{info.devnum}", check=False).text
    device = server.import_device(Selector(busid))
    try:
        ours = "\n".join(verbose(read_description(DeviceHandle(device))))
    finally:
        device.close()
    # What classes are called: the guest has no list of USB ids.
    unnamed = [line.partition(" (Defined at")[0] for line in lines(ours)]
    assert without_reports(unnamed) == without_reports(lines(theirs))


def without_reports(shown: list[str]) -> list[str]:
    """The report descriptors are not compared: the guest's lsusb cannot claim an interface that is exported."""
    return [line for line in shown if not _REPORT.match(line)]
