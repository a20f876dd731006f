"""Captures that join a relay, through the local channel: in the middle, several at once, with a filter; and who may."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import usb.core

from tests.oracles.pcapng_reader import read_capture
from tests.waiting import wait_until
from usbip_capture import get_backend
from usbip_capture.capture.sinks import FileSink
from usbip_capture.demo.device import BULK_IN, BULK_OUT, CDC_NOTIFY, DemoServer
from usbip_capture.errors import CannotListen, LocalProtocolError, RemoteProtocolError, ServerLost
from usbip_capture.live import joining, registry
from usbip_capture.live.joining import JoinedCapture, JoinedState
from usbip_capture.live.local_channel import LocalChannel
from usbip_capture.live.messages import Message
from usbip_capture.live.registry import Entry
from usbip_capture.net.networks import parse_networks
from usbip_capture.pyusb_backend import UsbipBackend
from usbip_capture.relay import background
from usbip_capture.relay.captures import DESCRIPTORS
from usbip_capture.relay.service import RelayService
from usbip_capture.servers.address import ServerAddress


@pytest.fixture
def demo() -> Iterator[ServerAddress]:
    """A server on this machine."""
    with closing(DemoServer()) as server:
        yield ServerAddress(*server.listen("127.0.0.1", 0))


@pytest.fixture
def service(demo: ServerAddress) -> Iterator[RelayService]:
    with closing(RelayService(demo, "127.0.0.1", 0)) as found:
        yield found


def entry_of(service: RelayService) -> Entry:
    entry = registry.find(service.channel.name)
    assert entry is not None
    return entry


class Joined:
    """A capture that has joined, and why it ended."""

    def __init__(
        self, entry: Entry, path: Path, capture_filter: str = "", max_packets: int = 0, record_unlinks: bool = False
    ) -> None:
        self.path = path
        self.reasons: list[str] = []
        self.capture = JoinedCapture(
            entry,
            FileSink(str(path)),
            snaplen=0,
            capture_filter=capture_filter,
            max_packets=max_packets,
            record_unlinks=record_unlinks,
            on_end=self.reasons.append,
        )


_backends: list[UsbipBackend] = []


@pytest.fixture(autouse=True)
def _devices_are_released() -> Iterator[None]:
    yield
    while _backends:
        _backends.pop().close()


def used(service: RelayService) -> usb.core.Device:
    backend = get_backend("127.0.0.1", service.relay.port)
    _backends.append(backend)
    device = usb.core.find(backend=backend, idVendor=0x1209)
    assert isinstance(device, usb.core.Device)
    device.set_configuration()
    return device


def test_a_capture_joins_in_the_middle_and_leaves(service: RelayService, tmp_path: Path) -> None:
    device = used(service)
    joined = Joined(entry_of(service), tmp_path / "a.pcapng")
    wait_until("it has begun", lambda: service.channel.captures)
    assert device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
    joined.capture.comment("a remark")
    assert device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
    joined.capture.close()
    records = list(read_capture(joined.path))
    marked = [r for r in records if DESCRIPTORS in r.comments]
    assert len(marked) >= 2 * 3
    assert records[: len(marked)] == marked
    assert len(records) == len(marked) + 4
    assert any("a remark" in record.comments for record in records)
    assert device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)  # and the device stays
    assert joined.reasons == []


def test_what_is_seen_is_captured_soon_however_busy_the_device_is(service: RelayService, tmp_path: Path) -> None:
    device = used(service)
    joined = Joined(entry_of(service), tmp_path / "a.pcapng")
    wait_until("it has begun", lambda: service.channel.captures)
    wait_until("packets", lambda: device.ctrl_transfer(0x80, 6, 0x0100, 0, 18) and joined.path.stat().st_size > 8000)
    joined.capture.close()


def test_several_at_once_each_with_its_own_filter(service: RelayService, tmp_path: Path) -> None:
    both = Joined(entry_of(service), tmp_path / "all.pcapng")
    control = Joined(entry_of(service), tmp_path / "none.pcapng", "bulk")
    few = Joined(entry_of(service), tmp_path / "few.pcapng", max_packets=3)
    wait_until("all have begun", lambda: service.channel.captures == 3)
    used(service)
    wait_until("the short one has ended", lambda: few.reasons)
    for joined in (both, control):
        joined.capture.close()
    assert few.reasons == ["count"]
    assert len(list(read_capture(few.path))) == 3
    assert len(list(read_capture(both.path))) > 3
    assert not [r for r in read_capture(control.path) if r.interface.name == "usbip0"]


def test_unlinks_are_recorded_when_asked_for(service: RelayService, tmp_path: Path) -> None:
    joined = Joined(entry_of(service), tmp_path / "a.pcapng", record_unlinks=True)
    wait_until("it has begun", lambda: service.channel.captures)
    device = used(service)

    with pytest.raises(usb.core.USBTimeoutError):
        device.read(CDC_NOTIFY, 16, 10)  # it never sends anything
    _backends.pop().close()
    joined.capture.close()
    records = list(read_capture(joined.path))
    messages = [r.data[40:44] for r in records if r.interface.name == "unlink0"]
    assert messages[:2] == [b"\0\0\0\2", b"\0\0\0\4"]  # CMD_UNLINK, RET_UNLINK
    assert any("unlinked by CMD_UNLINK" in comment for r in records for comment in r.comments)


def test_a_filter_that_is_wrong_is_refused(service: RelayService, tmp_path: Path) -> None:
    with pytest.raises(RemoteProtocolError, match="refuses"):
        Joined(entry_of(service), tmp_path / "x.pcapng", "epp")


def test_the_state_lists_clients_and_drops_them(service: RelayService) -> None:
    states: list[Message] = []
    state = JoinedState(entry_of(service), states.append)
    device = used(service)
    wait_until("the device is reported", lambda: "1209:0001" in json.dumps(states[-1:]))
    clients = states[-1]["clients"]
    assert isinstance(clients, list)
    (client,) = [client for client in clients if client["device"]]
    assert client["peer"].startswith("127.0.0.1:")
    assert "attach -r 127.0.0.1 -b 1-1" in str(states[-1]["hint"])
    state.drop(client["number"])
    wait_until("it is gone", lambda: states[-1]["clients"] == [])
    with pytest.raises(usb.core.USBError):
        device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
    state.close()


def test_only_its_user_can_join(service: RelayService, tmp_path: Path) -> None:
    entry = entry_of(service)
    path = Path(registry.folder())
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((path / entry.name).stat().st_mode) == 0o600
    assert stat.S_IMODE(os.stat(entry.address.removeprefix("unix:")).st_mode) == 0o600
    entry.token = "0" * 32
    with pytest.raises(RemoteProtocolError, match="token"):
        Joined(entry, tmp_path / "x.pcapng")


@pytest.mark.parametrize("loopback", [True, False])
def test_the_channel_with_either_kind_of_address(service: RelayService, loopback: bool, tmp_path: Path) -> None:
    with closing(LocalChannel(service, "usbip-x", "x", server="", listen="", loopback=loopback)) as channel:
        entry = registry.find("usbip-x")
        assert entry is not None
        assert entry.address.startswith("tcp:127.0.0.1:" if loopback else "unix:")
        joined = Joined(entry, tmp_path / "a.pcapng")
        wait_until("it has begun", lambda: channel.captures)
        used(service)
        joined.capture.close()
        entry.token = "wrong"
        with pytest.raises(RemoteProtocolError, match="token"):
            Joined(entry, tmp_path / "b.pcapng")
    assert len(list(read_capture(joined.path))) > 3
    assert registry.find("usbip-x") is None


@pytest.mark.parametrize(
    "output",
    [
        b"nonsense\n",
        b"[]\n",
        b"\0" * 70_000,
        b"{}\n",
        b'{"token": 7}\n',
        b'{"token": "TOKEN"}\n',
        b'{"token": "TOKEN", "want": "capture", "snaplen": "x"}\n',
        b'{"token": "TOKEN", "want": "capture", "max_packets": -1}\n',
        b'{"token": "TOKEN", "want": "state"}\n{"drop": true}\n',
        b"[" * 5000 + b"\n",
    ],
)
def test_garbage_on_the_channel_hurts_nobody(service: RelayService, output: bytes) -> None:
    entry = entry_of(service)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(entry.address.removeprefix("unix:"))
        sock.sendall(output.replace(b"TOKEN", entry.token.encode()))
        answer = b""
        try:
            while data := sock.recv(4096):
                answer += data
        except ConnectionResetError:  # it left with some of it unread
            pass
    assert b"error" in answer or len(output) > 4096
    wait_until("it is forgotten", lambda: not len(service.channel.subscribers))
    used(service)


def test_a_reader_that_never_reads_does_not_hold_up_the_device(service: RelayService) -> None:
    sock, _, _ = joining.connect(entry_of(service), "capture", snaplen=0)
    with sock:
        device = used(service)
        for _ in range(300):
            device.write(BULK_OUT, bytes(4096))
            assert len(device.read(BULK_IN, 4096)) == 4096
    wait_until("the capture is over", lambda: not service.channel.captures)


def test_a_long_path_is_no_obstacle(demo: ServerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ("x" * 120)))
    with closing(RelayService(demo, "127.0.0.1", 0)) as service:
        joined = Joined(entry_of(service), tmp_path / "a.pcapng")
        joined.capture.close()
        place = Path(entry_of(service).address.removeprefix("unix:")).parent
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert not place.exists()


# -- a process of its own


def test_a_relay_in_the_background_lives_for_its_captures_and_clients(demo: ServerAddress, tmp_path: Path) -> None:
    entry = background.start(demo, "127.0.0.1", 0, "")
    joined = Joined(entry, tmp_path / "a.pcapng")
    backend = get_backend("127.0.0.1", int(entry.listen.rpartition(":")[2]))
    device = usb.core.find(backend=backend)
    assert device is not None
    joined.capture.close()
    again = Joined(entry, tmp_path / "b.pcapng")
    again.capture.close()
    assert device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
    assert [entry.name for entry in registry.running()] == [entry.name]
    backend.close()
    wait_until("it ends with its last client", lambda: not registry.running())
    with pytest.raises(ServerLost, match="not running"):
        Joined(entry, tmp_path / "c.pcapng")


def test_a_relay_that_is_killed_is_not_listed_any_more(demo: ServerAddress, tmp_path: Path) -> None:
    entry = background.start(demo, "127.0.0.1", 0, "")
    joined = Joined(entry, tmp_path / "a.pcapng")
    os.kill(entry.pid, signal.SIGKILL)
    wait_until("the capture has ended", lambda: joined.reasons == [joining.OVER])
    wait_until("it is not listed", lambda: registry.running() == [])
    assert (Path(registry.folder()) / entry.name).exists()
    with pytest.raises(ServerLost):
        joining.stop(entry)


def test_what_many_killed_relays_have_left_hides_no_other(demo: ServerAddress) -> None:
    registry.make_folder()
    folder = Path(registry.folder())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for number in range(100):
        (folder / f".left-{number}.{dead.pid}").touch()
        (folder / f"left-{number}").touch()
    with closing(RelayService(demo, "127.0.0.1", 0)) as first:
        assert [entry.name for entry in registry.running()] == [first.channel.name]
        with closing(RelayService(demo, "127.0.0.1", 0)) as second:
            assert {entry.name for entry in registry.running()} == {first.channel.name, second.channel.name}
        assert not [path for path in folder.iterdir() if "left" in path.name]
        used(first)


def test_a_relay_on_ipv6_is_listed_with_its_address(demo: ServerAddress) -> None:
    with closing(RelayService(demo, "::1", 0)) as service:
        assert entry_of(service).display.endswith(f" at [::1]:{service.relay.port}")


def test_a_port_that_is_taken_is_a_sentence(demo: ServerAddress) -> None:
    with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1 port {demo.port}: the port is in use"):
        background.start(demo, "127.0.0.1", demo.port, "")


def test_listening_to_others_needs_an_allow_list(demo: ServerAddress) -> None:
    with pytest.raises(LocalProtocolError, match="no authentication"):
        RelayService(demo, "0.0.0.0", 0)
    with closing(RelayService(demo, "0.0.0.0", 0, parse_networks("192.0.2.0/24"))) as service:
        used(service)  # this machine may, always
        assert service.relay.hint.startswith("attach with: usbip --tcp-port")


def test_ten_captures_come_and_go_while_it_is_used(service: RelayService, tmp_path: Path) -> None:
    device = used(service)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)

    worker = threading.Thread(target=work)
    worker.start()
    for number in range(10):
        joined = Joined(entry_of(service), tmp_path / f"{number}.pcapng")
        wait_until("packets", lambda joined=joined: joined.path.stat().st_size > 20_000)  # type: ignore[misc]
        joined.capture.close()
        kinds = [record.usb.type for record in read_capture(joined.path) if record.usb is not None]
        assert abs(kinds.count(ord("S")) - kinds.count(ord("C"))) <= 1
    stop.set()
    worker.join()
