"""Guests for all kernel tests, and devices that are unplugged after each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.kernel.lending import Lending
from tests.kernel.rig import Guest, PythonGuest, unsupported

ROOT = Path(__file__).parents[2]

#: What `usbip-capture` imports in the guests: to serve, for a server that runs, and to attach.
_IMPORTED = (
    "resource", "tomllib", "usbip_capture.cli.attach", "usbip_capture.cli.chosen", "usbip_capture.cli.commanding",
    "usbip_capture.cli.main", "usbip_capture.cli.serve", "usbip_capture.cli.standard_output",
    "usbip_capture.devices.libusb.bus", "usbip_capture.devices.libusb.local_device", "usbip_capture.options.parsing",
    "usbip_capture.relay.listening", "usbip_capture.serving.local_server", "usbip_capture.serving.restarting",
    "usbip_capture.vhci.automatic",
)  # fmt: skip


class Plug(Protocol):
    """Plugs a device in as `Guest.plug` does, and exports it unless it is a hub; returns its busid."""

    def __call__(self, kind: str, bus: str = ..., *, file: Path | None = ..., socket: Path | None = ...) -> str: ...


@pytest.fixture(scope="session")
def start_guest() -> Iterator[Callable[[], Guest]]:
    """Starts a guest that lives as long as the tests do."""
    if reason := unsupported():
        pytest.skip(reason)
    guests: list[Guest] = []

    def start() -> Guest:
        guests.append(Guest())
        return guests[-1]

    yield start
    for guest in guests:
        guest.close()


@pytest.fixture(scope="session")
def guest(start_guest: Callable[[], Guest]) -> Guest:
    """The guest that is a USB/IP server."""
    return start_guest()


@pytest.fixture(scope="session")
def client(start_guest: Callable[[], Guest]) -> Guest:
    """A second guest, as USB/IP client."""
    return start_guest()


@pytest.fixture(scope="session")
def start_python_guest() -> Iterator[Callable[[], PythonGuest]]:
    """Starts a guest with Python that lives as long as the tests do."""
    if reason := unsupported():
        pytest.skip(reason)
    guests: list[PythonGuest] = []

    def start() -> PythonGuest:
        guests.append(PythonGuest())
        return guests[-1]

    yield start
    for guest in guests:
        guest.close()


@pytest.fixture(scope="session")
def lender(start_python_guest: Callable[[], PythonGuest]) -> PythonGuest:
    """The guest that our server runs in, with this package, and with drivers for what is plugged into it."""
    if importlib.util.find_spec("usb1") is None:
        pytest.skip("libusb1 is not installed")
    guest = start_python_guest()
    guest.add(ROOT / "usbip_capture", imported=_IMPORTED)
    guest.run("modprobe -a usb-storage sd_mod ftdi_sio usbhid hid-generic evdev snd-usb-audio usblp")
    return guest


@pytest.fixture(scope="session")
def borrower(start_python_guest: Callable[[], PythonGuest]) -> PythonGuest:
    """The guest whose kernel attaches what the other one lends; with this package, too."""
    guest = start_python_guest()
    guest.add(ROOT / "usbip_capture", imported=_IMPORTED)
    guest.run("chmod -R a+rX /site")
    guest.run("modprobe -a vhci-hcd usb-storage sd_mod ftdi_sio usbhid hid-generic evdev snd-usb-audio usblp usbtest")
    return guest


@pytest.fixture(scope="module")
def server(lender: PythonGuest) -> Iterator[Lending]:
    """Our server in the guest `lender`; other files start servers of their own there."""
    running = Lending(lender)
    yield running
    running.close()


@pytest.fixture
def lending(server: Lending) -> Iterator[Lending]:
    """Our server, over all devices of the guest `lender`; what a test has plugged in is unplugged afterwards."""
    yield server
    server.restore()


@pytest.fixture
def plug(guest: Guest) -> Iterator[Plug]:
    plugged: list[str] = []

    def plug(kind: str, bus: str = "xhci", *, file: Path | None = None, socket: Path | None = None) -> str:
        busid = guest.plug(kind, bus, file=file, socket=socket)
        plugged.append(busid)
        return busid if kind == "hub" else guest.export(busid)

    yield plug
    for busid in reversed(plugged):
        if guest.is_plugged(busid):
            guest.unplug(busid)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk image of 1 MiB, each block with its number in it."""
    path = tmp_path / "disk.img"
    path.write_bytes(b"".join(b"block %06d ".ljust(512, b".") % number for number in range(2048)))
    return path
