"""Sessions of a real kernel, recorded by its usbmon or by our relay, and replayed to it without the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kernel.conftest import Plug
from tests.kernel.rig import Guest, PythonGuest
from tests.kernel.rig.usbmon import recorded
from tests.kernel.test_kernel_server import KEY_A, Keys, echo, md5, md5_of_disk
from tests.waiting import wait_until
from usbip_capture import PcapWriter
from usbip_capture.comparing.differences import compare
from usbip_capture.comparing.text import lines
from usbip_capture.relay.relay import Relay
from usbip_capture.replayed.device import ReplayedDevice
from usbip_capture.replayed.recording import Recording, read_recordings
from usbip_capture.replayed.server import ReplayServer
from usbip_capture.servers.address import ServerAddress
from usbip_capture.usb.urb import DIR_IN, TransferType

pytestmark = pytest.mark.kernel

GOLDEN = Path(__file__).parents[1] / "golden"
BLOCK = 65536
KEY_B, KEY_ENTER = 48, 28
NEW = bytes(range(256)) * (2 * BLOCK // 256)
#: Until partitions have been looked for, through the page cache.
ATTACHED = "until dmesg | grep -q 'Attached SCSI'; do usleep 20000; done; dmesg -c >/dev/null"
#: Until there is a card.
SOUND_OUT, SOUND_IN = (
    f"until [ -c /dev/snd/controlC0 ] && [ -c /dev/snd/pcmC0D0{way} ]; do usleep 20000; done; " for way in "pc"
)
FRAME = 4  # bytes, of 16 bits and two channels
DIRECT = "dd if=/dev/sda bs=64k iflag=direct 2>/dev/null | md5sum"

Use = Callable[[str], str]


@dataclass(slots=True)
class Session:
    """recording: of the client's usbmon. driver: of its first interface with one there. result: of what was done."""

    recording: Recording
    driver: str
    result: str


@dataclass(slots=True)
class Rig:
    """A client's kernel that attaches devices of a server, and the same devices replayed."""

    client: PythonGuest
    folder: Path
    replayed: list[ReplayedDevice] = field(default_factory=list)

    def session(self, name: str, port: int, busid: str, use: Use) -> Session:
        """Attach, use, detach, with usbmon of the bus that it is on."""
        path = self.folder / f"{name}.pcap"
        with recorded(self.client, self.client.bus("vhci"), path):
            local = self.client.attach(port, busid)
            bound = f"B=$(ls -d /sys/bus/usb/devices/{local}:1.*/driver 2>/dev/null | head -n 1); [ $B ]"
            found = self.client.run(f"until {bound}; do usleep 20000; done; readlink $B")
            driver = Path(found.text.strip()).name
            result = use(local)
            self.client.detach_all()  # a device that was unplugged has left by itself
            self.client.run(f"while [ -e /sys/bus/usb/devices/{local} ]; do usleep 20000; done")
        return Session(read_recordings(path)[0], driver, result)

    def relayed(self, guest: Guest, busid: str, use: Use) -> tuple[Session, Recording]:
        """The same through our relay, and what that has recorded."""
        path = self.folder / "relay.pcapng"
        server = ServerAddress("127.0.0.1", guest.usbip_port)
        with closing(Relay(server, port=0)) as relay, PcapWriter(path) as writer:
            tap = relay.capture(writer)
            session = self.session("relayed", relay.port, busid, use)
            wait_until("the relay lets go", lambda: not relay.busy)
            relay.end_capture(tap)
        return session, read_recordings(path)[0]

    def replay(self, recording: Recording, use: Use, speed: float = 0.0) -> Session:
        """The session again, from a recording."""
        with closing(ReplayServer([recording], speed=speed, on_open=self.replayed.append)) as server:
            return self.session("replayed", server.listen("127.0.0.1", 0)[1], recording.info.busid, use)

    @property
    def divergences(self) -> list[str]:
        return [str(divergence) for device in self.replayed for divergence in device.outcome.divergences]


@pytest.fixture
def rig(borrower: PythonGuest, tmp_path: Path) -> Iterator[Rig]:
    borrower.run("modprobe vhci-hcd; dmesg -c >/dev/null")
    made = Rig(borrower, tmp_path)
    yield made
    borrower.detach_all()


def assert_equal(first: Session, second: Session) -> None:
    """The same driver, the same result, and no difference between the captures but times."""
    assert (second.driver, second.result) == (first.driver, first.result)
    ours, theirs = first.recording, second.recording
    found = compare(ours.exchanges, theirs.exchanges, (ours.known, theirs.known))
    assert list(lines(found)) == []


def test_keys_are_pressed_again(rig: Rig, guest: Guest, plug: Plug) -> None:
    busid = plug("kbd")

    def press(local: str) -> str:
        with closing(Keys(rig.client, local)) as keys:
            if not rig.replayed:
                guest.send_keys("a")
            keys.wait(KEY_A)
        return "a"

    first = rig.session("first", guest.usbip_port, busid, press)
    guest.wait_available(busid)
    assert_equal(first, rig.replay(first.recording, press, speed=0.25))  # with time to open it on a busy machine
    assert (first.driver, rig.divergences) == ("usbhid", [])


def test_a_disk_has_what_it_had(rig: Rig, guest: Guest, plug: Plug, disk: Path) -> None:
    busid = plug("storage", "ehci", file=disk)
    before = md5(disk)

    def use(local: str) -> str:
        rig.client.run(ATTACHED)
        found = [rig.client.run(DIRECT).text]
        rig.client.run("dd of=/dev/sda bs=64k seek=3 iflag=fullblock oflag=direct 2>/dev/null", NEW)
        found.append(rig.client.run(DIRECT).text)
        return " ".join(text.split()[0] for text in found)

    first = rig.session("first", guest.usbip_port, busid, use)
    assert first.result == f"{before} {md5(disk)}"
    again = rig.replay(first.recording, use)
    assert_equal(first, again)
    assert (first.driver, rig.divergences) == ("usb-storage", [])
    assert not rig.replayed[-1].unused
    # In other pieces, as the kernel reads ahead: what is read is what was there before.
    buffered = rig.replay(first.recording, lambda local: md5_of_disk(rig.client))
    assert (buffered.result, rig.divergences) == (before, [])


def test_a_serial_adapter_echoes_again(rig: Rig, guest: Guest, plug: Plug) -> None:
    busid = plug("serial")
    first, recording = rig.relayed(guest, busid, lambda local: echo(rig.client))
    assert first.result == "hello\n"
    again = rig.replay(recording, lambda local: echo(rig.client))
    assert (again.driver, again.result, rig.divergences) == ("ftdi_sio", "hello\n", [])


def sound(recording: Recording, way: int) -> bytes:
    """What was sent to a speaker (way 0), or heard (`DIR_IN`)."""
    found = [one for one in recording.exchanges if one.transfer_type == TransferType.ISOCHRONOUS and not one.unlinked]
    return b"".join(one.data if way else one.sent for one in found if one.endpoint & DIR_IN == way)


def play(rig: Rig, recording: Recording, local: str) -> None:
    played = sound(recording, 0)
    begin = len(played) - len(played.lstrip(b"\0"))  # silence, until there is something to play
    played = played[begin - begin % FRAME :].rstrip(b"\0")
    assert len(played) > BLOCK // 2
    rig.client.run(SOUND_OUT + "aplay -q -D hw:0 -f S16_LE -r 48000 -c 2 -t raw", played)


def listen(rig: Rig, recording: Recording, local: str) -> None:
    """All that was heard; a kernel gives up if nothing comes for as long as its buffer is."""
    expected = sound(recording, DIR_IN)
    frames = len(expected) // FRAME
    size = f"-s {frames} --period-size={frames // 8} --buffer-size=220500"
    assert frames > 12_000
    assert not frames % 8
    heard = rig.client.run(SOUND_IN + f"arecord -q -D hw:0 -f S16_LE -r 44100 -c 2 -t raw {size}")
    assert heard.stdout == expected


def nothing(rig: Rig, recording: Recording, local: str) -> None:
    """The driver is enough."""


def press_keys(rig: Rig, recording: Recording, local: str) -> None:
    with closing(Keys(rig.client, local)) as keys:
        for key in (KEY_A, KEY_B, KEY_ENTER):
            keys.wait(key)


def list_verbosely(rig: Rig, recording: Recording, local: str) -> None:
    assert "QEMU USB SERIAL" in rig.client.run("lsusb -v -d 0403:6001 2>/dev/null").text


def greet(rig: Rig, recording: Recording, local: str) -> None:
    rig.client.run("until [ -c /dev/ttyUSB0 ]; do usleep 20000; done; stty -F /dev/ttyUSB0 115200 raw -echo")
    # No `timeout` of BusyBox: it would keep the port open for a while.
    greeting = "exec 8</dev/ttyUSB0; echo hello world >/dev/ttyUSB0; head -c 12 <&8; exec 8<&-"
    assert rig.client.run(greeting).text == "hello world\n"


def read_and_write(rig: Rig, recording: Recording, local: str) -> None:
    (content,) = {one.data for one in recording.exchanges if len(one.data) == BLOCK // 4}
    (written,) = {one.sent for one in recording.exchanges if len(one.sent) == BLOCK // 8}
    rig.client.run(ATTACHED)
    assert rig.client.run("dd if=/dev/sda bs=16k skip=4 count=1 iflag=direct 2>/dev/null").stdout == content
    rig.client.run("dd of=/dev/sda bs=8k seek=16 iflag=fullblock oflag=direct 2>/dev/null", written)


def read_until_unplugged(rig: Rig, recording: Recording, local: str) -> None:
    read = [one.data for one in recording.exchanges if len(one.data) == 4096]
    rig.client.run(ATTACHED)
    found = rig.client.run("dd if=/dev/sda bs=4k iflag=direct 2>/dev/null", check=False).stdout
    assert found in b"".join(read)
    assert len(found) > 4 * BLOCK // 4


#: Those in tests/golden, of other devices on another kernel: the driver, and what is done again.
GOLDEN_SESSIONS = {
    "keyboard": ("usbhid", press_keys),
    "serial": ("ftdi_sio", greet),
    "storage": ("usb-storage", read_and_write),
    "audio-in": ("snd-usb-audio", listen),
    "audio-out": ("snd-usb-audio", play),
    "stall": ("ftdi_sio", list_verbosely),
    "detach-busy": ("usbhid", nothing),
    "unplug": ("usb-storage", read_until_unplugged),
}
_LONG = ("stall", "detach-busy", "unplug")


def test_all_sessions_of_other_days_are_replayed() -> None:
    assert sorted(GOLDEN_SESSIONS) == sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in _LONG else []) for name in GOLDEN_SESSIONS]
)
def test_a_session_of_another_day(rig: Rig, name: str) -> None:
    driver, use = GOLDEN_SESSIONS[name]
    (recording,) = read_recordings(GOLDEN / name / "client-usbmon.pcap")

    def again(local: str) -> str:
        use(rig, recording, local)
        return ""

    speed = 0.25 if name == "keyboard" else 0.0
    assert_equal(Session(recording, driver, ""), rig.replay(recording, again, speed))
    assert rig.divergences == []
    assert not rig.replayed[-1].unused
