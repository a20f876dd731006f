"""Linux's own serial drivers on our simulated adapters: what they ask for is what our drivers ask for, byte by byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from tests.kernel.rig import Guest
from tests.waiting import wait_until
from usbip_capture.server import Server
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.adapter import SimulatedAdapter
from usbip_capture.simulated.serial.ch34x import ch34x
from usbip_capture.simulated.serial.cp210x import cp210x
from usbip_capture.simulated.serial.exported import Adapter
from usbip_capture.simulated.serial.ftdi import ftdi
from usbip_capture.simulated.serial.line import Notebook, Peer
from usbip_capture.uart import cdc_acm as acm_chip
from usbip_capture.uart import ch34x as ch_chip
from usbip_capture.uart import cp210x as cp_chip
from usbip_capture.uart import ftdi as ftdi_chip
from usbip_capture.uart.driver import Driver, Request
from usbip_capture.uart.settings import LineSettings
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import Setup

pytestmark = pytest.mark.kernel

SPEEDS = [300, 1200, 9600, 19200, 57600, 115200, 230400, 460800, 921600, 1_000_000]
FAST = [1_500_000, 2_000_000, 3_000_000]
FRAMES = {
    "cs8 -parenb -cstopb": LineSettings(9600),
    "cs7 parenb -parodd cstopb": LineSettings(9600, 7, "E", 2),
    "cs8 parenb parodd -cstopb": LineSettings(9600, 8, "O"),
}


@dataclass(slots=True)
class Case:
    """An adapter, the guest's driver for it, and the requests that set its speed and its frame."""

    make: Callable[[Peer], Adapter]
    module: str
    speed: tuple[int, ...]
    frame: tuple[int, ...]
    answers: dict[int, str] = field(default_factory=dict)  # to our driver, by wValue
    fastest: int = 3_000_000
    rounds: bool = False  # Linux computes the speed that the chip will have, instead of leaving that to the chip


CASES = {
    "acm": Case(acm, "cdc-acm", (acm_chip.SET_LINE_CODING,), (acm_chip.SET_LINE_CODING,)),
    "FT232R": Case(lambda p: ftdi([p]), "ftdi_sio", (ftdi_chip.SET_BAUD_RATE,), (ftdi_chip.SET_DATA,)),
    "FT2232H": Case(
        lambda p: ftdi([p, Notebook()], "FT2232H"), "ftdi_sio", (ftdi_chip.SET_BAUD_RATE,), (ftdi_chip.SET_DATA,)
    ),
    "FT4232H": Case(
        lambda p: ftdi([p, Notebook(), Notebook(), Notebook()], "FT4232H"),
        "ftdi_sio", (ftdi_chip.SET_BAUD_RATE,), (ftdi_chip.SET_DATA,),
    ),
    "FT230X": Case(lambda p: ftdi([p], "FT230X"), "ftdi_sio", (ftdi_chip.SET_BAUD_RATE,), (ftdi_chip.SET_DATA,)),
    "CP2102": Case(
        lambda p: cp210x([p], "CP2102"), "cp210x", (cp_chip.SET_BAUDRATE,), (cp_chip.SET_LINE_CTL,),
        {cp_chip.GET_PARTNUM: "02"}, fastest=1_000_000,
    ),
    "CP2102N": Case(
        lambda p: cp210x([p], "CP2102N"), "cp210x", (cp_chip.SET_BAUDRATE,), (cp_chip.SET_LINE_CTL,),
        {cp_chip.GET_PARTNUM: "20"}, rounds=True,
    ),
    "CH340": Case(ch34x, "ch341", (ch_chip.WRITE_REG,), (ch_chip.WRITE_REG,), {0: "31", 5: "01c3"}),
}  # fmt: skip


class Attached:
    """An adapter in the guest. `requests` is what its kernel has asked for, standard requests left out."""

    def __init__(self, guest: Guest, case: Case) -> None:
        self.guest = guest
        self.tty = "/dev/ttyACM0" if case.module == "cdc-acm" else "/dev/ttyUSB0"
        self.notebook = Notebook()
        self.requests: list[tuple[Setup, bytes]] = []
        adapter = case.make(self.notebook)
        kind, requests = adapter.kind, self.requests

        def watched(info: DeviceInfo, descriptors: Descriptors, peers: Sequence[Peer]) -> SimulatedAdapter:
            device = kind(info, descriptors, peers)
            answer = device.control

            def control(setup: Setup, data: bytes) -> bytes | None:
                requests.append((setup, data))
                return answer(setup, data)

            device.control = control  # type: ignore[method-assign]
            return device

        adapter.kind = watched
        self.server = Server()
        self.server.add(adapter.info, adapter.open)
        port = self.server.listen("127.0.0.1", 0)[1]
        guest.run(f"modprobe {case.module}")
        self.port = adapter.descriptors.serial_ports(adapter.info.speed)[0]
        self.busid = guest.attach(port, adapter.info.busid)
        guest.run(f"until [ -e {self.tty} ]; do usleep 20000; done", timeout=20)
        # Held open, so that nothing is set back when a command ends.
        guest.run(f"(exec 9<>{self.tty}; while [ ! -e /tmp/let-go ]; do usleep 50000; done) >/dev/null 2>&1 &")
        self.stty("raw -echo clocal -crtscts")

    def stty(self, settings: str) -> list[tuple[Setup, bytes]]:
        """Change settings; the requests that this made."""
        before = len(self.requests)
        self.guest.run(f"stty -F {self.tty} {settings}")
        return self.requests[before:]

    def close(self) -> None:
        self.guest.run("touch /tmp/let-go; usleep 100000; rm /tmp/let-go")
        self.guest.detach(self.busid)
        self.server.close()


@pytest.fixture(scope="module")
def client(start_guest: Callable[[], Guest]) -> Iterator[Guest]:
    with Guest() as guest:
        yield guest


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def attached(client: Guest, case: Case) -> Iterator[Attached]:
    there = Attached(client, case)
    yield there
    there.close()


def our_driver(attached: Attached, case: Case) -> Driver:
    driver = attached.port.driver()
    for request in driver.identify():
        driver.answered(request, bytes.fromhex(case.answers.get(request.setup.wValue, "")))
    return driver


def chosen(requests: Sequence[tuple[Setup, bytes]], wanted: tuple[int, ...], case: Case) -> list[tuple[Setup, bytes]]:
    found = [(setup, data) for setup, data in requests if setup.bRequest in wanted]
    if wanted == (ch_chip.WRITE_REG,):  # without the flow control register, which Linux sets each time
        found = [(setup, data) for setup, data in found if setup.wValue != 0x2727]
    return found


def _divisor(data: bytes) -> bytes:
    """Of the 24 MHz clock of a CP2102N, for the speed that it is asked for."""
    return round(24_000_000 / int.from_bytes(data, "little")).to_bytes(4, "little")


def as_pairs(requests: Sequence[Request]) -> list[tuple[Setup, bytes]]:
    return [(request.setup, request.data) for request in requests]


def test_speeds(attached: Attached, case: Case) -> None:
    driver = our_driver(attached, case)
    attached.stty("cs8 -parenb -cstopb 1800")
    for speed in [*SPEEDS, *(fast for fast in FAST if fast <= case.fastest)]:
        theirs = chosen(attached.stty(str(speed)), case.speed, case)
        ours = chosen(as_pairs(driver.apply(None, LineSettings(speed))), case.speed, case)
        if case.rounds:
            theirs, ours = ([(setup, _divisor(data)) for setup, data in each] for each in (theirs, ours))
        assert theirs == ours, f"{speed} baud"
        assert attached.notebook.line.settings.baudrate == pytest.approx(speed, rel=0.005)


def test_frames(attached: Attached, case: Case) -> None:
    driver = our_driver(attached, case)
    attached.stty("9600 cs8 -parenb cstopb")
    for text, settings in FRAMES.items():
        theirs = chosen(attached.stty(text), case.frame, case)
        ours = chosen(as_pairs(driver.apply(None, settings)), case.frame, case)
        assert theirs[-1:] == ours[-1:], text
        assert attached.notebook.line.settings.frame == settings.frame


def test_data_both_ways(attached: Attached) -> None:
    notebook = attached.notebook
    attached.stty("115200 cs8 -parenb -cstopb")
    notebook.written.clear()
    attached.guest.run(f"echo -n 'from the guest' >{attached.tty}")
    wait_until("it is written", lambda: bytes(notebook.written) == b"from the guest")
    notebook.line.send(b"from the far end")
    assert attached.guest.run(f"head -c 16 <{attached.tty}").stdout == b"from the far end"


# Linux 6.1's drivers for the others have none.
@pytest.mark.parametrize("case", [n for n in CASES if CASES[n].module in ("ftdi_sio", "cp210x")], indirect=True)
def test_hardware_flow_control(attached: Attached) -> None:
    attached.stty("crtscts")
    assert attached.notebook.line.settings.rtscts
    attached.stty("-crtscts")
    assert not attached.notebook.line.settings.rtscts


def test_lines_rise_with_the_open_port(attached: Attached) -> None:
    assert (attached.notebook.line.dtr, attached.notebook.line.rts) == (True, True)
