"""A device by its serial number, of several that are alike: wherever a device is chosen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import usb.core

from tests.oracles.pcapng_reader import read_capture
from tests.programs.commands import run_line
from tests.waiting import wait_until
from usbip_capture import get_backend
from usbip_capture.demo.device import DESCRIPTORS, INFO, DemoDevice
from usbip_capture.errors import DeviceNotFound
from usbip_capture.server import Server
from usbip_capture.servers.address import Selector
from usbip_capture.servers.address import ServerAddress as RemoteServer
from usbip_capture.simulated.chapter9 import StandardRequests
from usbip_capture.usb.info import DeviceInfo

NUMBERS = {"1-1": "A1", "1-2": "B 2,x", "1-3": ""}


class Board(DemoDevice):
    """The demo with another serial number, or with none."""

    def __init__(self, info: DeviceInfo) -> None:
        super().__init__(info)
        number = NUMBERS[info.busid]
        device = bytearray(DESCRIPTORS.device)
        if not number:
            device[16] = 0
        strings = [number if text == "DEMO0001" else text for text in DESCRIPTORS.strings]
        given = replace(DESCRIPTORS, device=bytes(device), strings=strings)
        self._standard = StandardRequests(given, info.speed)


@pytest.fixture
def where() -> Iterator[str]:
    server = Server()
    for busid in NUMBERS:
        info = replace(INFO, busid=busid, devnum=int(busid[-1]))
        server.add(info, partial(Board, info))
    yield f"127.0.0.1:{server.listen('127.0.0.1', 0)[1]}"
    server.close()


def test_it_is_found(where: str) -> None:
    server = RemoteServer.parse(where)
    for number, busid in (("A1", "1-1"), ("B 2,x", "1-2")):
        assert server.find(Selector(serial=number)).busid == busid
        imported = server.import_device(Selector(serial=number))
        assert imported.info.busid == busid
        imported.close()
        wait_until("all are listed again", lambda: len(server.devices()) == len(NUMBERS))
    for selector in (Selector(serial="C"), Selector("1-1", serial="B 2,x"), Selector(vid_pid=(1, 2), serial="A1")):
        with pytest.raises(DeviceNotFound, match="has the serial number"):
            server.find(selector)
        wait_until("all are listed again", lambda: len(server.devices()) == len(NUMBERS))
    with pytest.raises(DeviceNotFound) as caught:
        server.find(Selector(serial="C"))
    reported = "1-1 (1209:0001) has A1; 1-2 (1209:0001) has B 2,x; 1-3 (1209:0001) has none"
    assert str(caught.value) == f"no device of {where} has the serial number C (or it is in use): {reported}"


def test_others_that_are_in_use_are_left_alone(where: str) -> None:
    server = RemoteServer.parse(where)
    ours = server.import_device(Selector(busid="1-1"))
    assert server.find(Selector(serial="B 2,x")).busid == "1-2"
    assert ours.alive
    ours.close()


def test_in_a_program(where: str) -> None:
    with get_backend(where, device="serial=A1") as backend:
        devices = list(usb.core.find(find_all=True, backend=backend))
        assert [device.serial_number for device in devices] == ["A1"]
    with get_backend(where, device="serial=A1,1-3") as backend:
        assert len(list(usb.core.find(find_all=True, backend=backend))) == 2


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("probe {} --serial-number 'B 2,x'", "device         1-2 of"),
        ("probe {} serial=A1", "device         1-1 of"),
        ("control {} --vid 0x1209 --pid 1 --serial-number A1 80 08 0 0 1 --raw | wc -c", "1"),
        ("read {} --serial-number A1 --ep 0x83", "00000000"),
        ("write {} --serial-number A1 --ep 4 --data-hex 01", " written"),
        ("capture {} --serial-number 'B 2,x' -o x.pcapng --count 5 --json", '"packets": 5'),
        ("selftest {} --serial-number A1", " 0 wrong"),
        ("use {} --serial-number A1 -- python3 -c 'import usb.core; print(usb.core.find().serial_number)'", "A1"),
    ],
)
def test_on_the_command_line(line: str, shown: str, where: str, tmp_path: Path) -> None:
    done = run_line(f"usbip-capture {line.format(where)}", tmp_path)
    assert (done.returncode, shown in done.stdout) == (0, True), done.stdout + done.stderr
    if "x.pcapng" in line:
        interfaces = {record.interface.description for record in read_capture(tmp_path / "x.pcapng")}
        assert all(re.search(r"\b1-2\b", text) for text in interfaces), interfaces
