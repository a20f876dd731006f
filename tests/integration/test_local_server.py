"""`usbip_capture.serve`: this machine's devices lent by a program of one's own, over a bus that the test has."""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import usb.core

from tests.fakes.local_bus import FakeBus
from tests.oracles.pcapng_reader import read_capture
from tests.waiting import wait_until
from usbip_capture import LocalServer, get_backend, serve
from usbip_capture.access.rules import CLOSED, OPEN, AccessRules
from usbip_capture.errors import CannotListen, CaptureError, ImportRefused, LocalProtocolError, UsbipError
from usbip_capture.lending import restore
from usbip_capture.lending.restore import Restored
from usbip_capture.net.listening import Peer
from usbip_capture.server.rules import Rules
from usbip_capture.servers import announcing
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.servers.announcing import AnnouncedDevice, FurtherPorts
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.serving import captures, local_server
from usbip_capture.serving.access import RuledAccess
from usbip_capture.serving.announced import Announcing
from usbip_capture.serving.following import FollowedFile
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.urb import Urb

READ = Urb.control(get_descriptor(1, 0, 0, 18).pack())
ANY = "127.0.0.1:0"


@pytest.fixture
def bus() -> FakeBus:
    made = FakeBus()
    made.plug("1-1")
    return made


def named(server: LocalServer) -> ServerAddress:
    return ServerAddress.parse(server.address, timeout=20.0)


def test_a_pyusb_program_uses_what_is_served(bus: FakeBus) -> None:
    with serve(["303a:4001"], listen=ANY, bus=bus) as server:
        assert [str(info) for info in server.devices] == ["1-1 (303a:4001)"]
        assert server.rules == ["303a:4001"]
        host, port = server.addresses[0]
        with get_backend(host, port) as backend:
            device = usb.core.find(backend=backend)
            assert isinstance(device, usb.core.Device)
            assert device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
            (client,) = [client for client in server.clients if client.busid]
            assert (client.busid, client.peer.host) == ("1-1", "127.0.0.1")
            assert client.urbs >= 1
            assert client.bytes >= 18
        wait_until("the client has left", lambda: not server.clients)
    with pytest.raises(OSError, match=os.strerror(errno.ECONNREFUSED)):
        socket.create_connection((host, port), 20)
    server.close()


def test_drivers_that_stay_unbound_are_reported(
    bus: FakeBus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(restore, "restore", lambda: Restored([], ["1-2:1.0 (cdc_acm): Permission denied"]))
    serve(["all"], listen=ANY, bus=bus).close()
    assert "still without a driver: 1-2:1.0 (cdc_acm): Permission denied" in caplog.text


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"rotate": "files:2"}, "rotate is for files: name one with pcap"),
        ({"rotate": "files:2", "pcap": "-"}, "-b is for files"),
        ({"hindsight": "30s"}, "hindsight is for captures that begin later: add web"),
        (
            {"hindsight": "30 parsecs"},
            "hindsight: '30 parsecs' is not what is to be kept: write a time, a size or both",
        ),
        ({"pcap": "x.pcap"}, "pcap: x.pcap must not end with .pcap: captures are pcapng, as in x.pcapng"),
        (
            {"pcap": Path("x y.CAP.gz")},
            "pcap: 'x y.CAP.gz' must not end with .cap: captures are pcapng, as in x y.pcapng",
        ),
    ],
)
def test_captures_that_cannot_be_meant(
    bus: FakeBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LocalProtocolError, match=re.escape(why)):
        serve(["all"], listen=ANY, bus=bus, **settings)
    assert not list(tmp_path.iterdir())
    assert not bus.watchers


def test_a_pipe_may_have_any_name(bus: FakeBus, tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    os.mkfifo(path)
    read = threading.Thread(target=path.read_bytes)
    read.start()
    serve(["all"], listen=ANY, pcap=path, bus=bus).close()
    read.join(20)


def test_rules_change_while_it_runs(bus: FakeBus) -> None:
    bus.plug("1-2", (0x0403, 0x6001))
    with serve("1-1", listen=ANY, bus=bus) as server:
        server.add_rule("0403:6001")
        assert [info.busid for info in server.devices] == ["1-1", "1-2"]
        assert server.remove_rule("1-1")
        assert not server.remove_rule("1-1")
        assert [exported.info.busid for exported in server.exported] == ["1-2"]
        with pytest.raises(LocalProtocolError):
            server.set_rules(["1-1", "nonsense"])
        assert server.rules == ["0403:6001"]
        server.set_rules(["all"])
        assert len(server.devices) == 2
        assert not server.reload()  # it was said here what is exported


def test_a_client_is_disconnected_and_the_device_stays(bus: FakeBus) -> None:
    with serve(["all"], listen=ANY, bus=bus) as server:
        device = named(server).import_device(Selector("1-1"))
        lost: list[str] = []
        device.watch(lost.append)
        assert server.disconnect("1-1")
        wait_until("the client has lost the device", lambda: lost)
        device.close()
        wait_until("it is free", lambda: not server.disconnect("1-1"))
        named(server).import_device(Selector("1-1")).close()


def test_several_addresses(bus: FakeBus, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with serve(["all"], listen=[ANY, "localhost:0"], unix=str(path), bus=bus) as server:
        assert len({port for _, port in server.addresses}) == 2
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(bytes.fromhex("0111 8005 00000000"))
            sock.settimeout(20)
            assert sock.recv(8) == bytes.fromhex("0111 0005 00000000")
        with pytest.raises(CannotListen, match="the name is in use"):
            serve(["all"], unix=str(path), bus=bus)
        assert path.exists()
    assert not path.exists()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()  # as a killed server leaves it
    serve(["all"], unix=str(path), bus=bus).close()
    path.write_text("a file")
    with pytest.raises(CannotListen):
        serve(["all"], unix=str(path), bus=bus)
    assert path.read_text() == "a file"


def test_no_more_clients_than_there_may_be(bus: FakeBus) -> None:
    bus.plug("1-2")
    with serve(["all"], listen=ANY, max_clients=1, bus=bus) as server:
        device = named(server).import_device(Selector("1-1"))
        with pytest.raises(UsbipError):
            named(server).devices()
        assert device.run(READ, 20).status == 0
        device.close()
        wait_until("the client has left", lambda: not server.clients)
        named(server).import_device(Selector("1-2")).close()


@pytest.mark.parametrize("address", ["0.0.0.0", "*:0", "[::]:0", "192.0.2.1:3240"])
def test_other_machines_need_to_be_allowed(address: str, bus: FakeBus) -> None:
    with pytest.raises(LocalProtocolError, match=r"no authentication.*--allow.*or --allow-public"):
        serve(["all"], listen=address, bus=bus)
    assert not bus.watchers


def nothing(busid: str) -> None:
    """No device is exported."""


def test_who_may_connect() -> None:
    access = RuledAccess(lambda: AccessRules(CLOSED, ["allow 192.0.2.0/24", "allow 2001:db8::/32"]), nothing)
    for host in ("192.0.2.7", "2001:db8::1", "127.0.0.1", "::1", "198.51.100.1", ""):
        assert access.may_connect(Peer(host, 1, "198.51.100.1")), host
    for host in ("192.0.3.7", "2001:db9::1", "nonsense"):
        assert not access.may_connect(Peer(host, 1, "198.51.100.1")), host
    public = RuledAccess(lambda: AccessRules(OPEN), nothing)
    assert public.may_connect(Peer("203.0.113.1", 1))
    public.check_listening("0.0.0.0", 3240)


def test_sessions_are_captured(bus: FakeBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "_MAX_INTERFACES", 2)
    bus.plug("1-2")
    target = tmp_path / "sessions.pcapng"
    with serve(["all"], listen=ANY, pcap=target, bus=bus) as server:
        first = named(server).import_device(Selector("1-1"))
        second = named(server).import_device(Selector("1-2"))
        for device in (first, second):
            assert device.run(READ, 20).status == 0
            device.close()
        wait_until("both are free", lambda: len(named(server).devices()) == 2)
        third = named(server).import_device(Selector("1-1"))  # no further interface: that of the first has ended
        third.run(READ, 20)
        third.close()
    records = list(read_capture(target))
    names = {record.interface.name: record.interface.description for record in records}
    assert sorted(name for name in names if name.startswith("usbip")) == ["usbip0", "usbip1"]
    assert "1-1 303a:4001 Demo device" in names["usbip0"]
    assert "1-2 303a:4001" in names["usbip1"]


def test_a_capture_that_fails_ends_alone(bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    server = serve(["all"], listen=ANY, pcap="/dev/full", bus=bus)
    device = named(server).import_device(Selector("1-1"))
    wait_until("the capture has ended", lambda: "the capture has ended" in caplog.text)
    assert device.run(READ, 20).status == 0
    assert "the disk is full" in caplog.text
    device.close()
    with pytest.raises(CaptureError, match="the disk is full"):
        server.close()
    server.close()


def test_nothing_is_left_of_what_cannot_start(bus: FakeBus) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotListen, match="the port is in use"):
        serve(["all"], listen=[ANY, f"127.0.0.1:{taken.getsockname()[1]}"], bus=bus)
    assert set(threading.enumerate()) <= before
    assert not bus.watchers


class Announced:
    """In place of the announcement: what it was asked for."""

    made: list[Announced] = []

    def __init__(
        self, name: str, port: int, devices: list[AnnouncedDevice], listening: list[str], further: FurtherPorts
    ) -> None:
        self.tls_port = further.tls
        self.name, self.port, self.listening, self.closed = name, port, listening, False
        self.devices = [devices]
        self.made.append(self)

    def update(self, devices: list[AnnouncedDevice]) -> None:
        self.devices.append(devices)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[Announced]:
    monkeypatch.setattr(announcing, "Announcement", Announced)
    monkeypatch.setattr(Announced, "made", [])
    return Announced.made


def test_it_is_announced_with_what_it_exports(bus: FakeBus, announced: list[Announced]) -> None:
    with serve(["all"], listen=ANY, announce=True, name="Rack 1", bus=bus) as server:
        (made,) = announced
        assert (made.name, made.port, made.listening) == ("Rack 1", server.addresses[0][1], ["127.0.0.1"])
        assert [(str(device.info), device.name) for device in made.devices[0]] == [("1-1 (303a:4001)", "Demo device")]
        bus.plug("1-2")
        wait_until("the announcement has changed", lambda: len(made.devices[-1]) == 2)
        assert not made.closed
    assert made.closed


def test_a_change_while_the_announcement_begins_is_announced(
    bus: FakeBus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(Announced):
        """A device comes after the first look at what is exported."""

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)
            bus.plug("1-2", (0x0403, 0x6001))
            wait_until("the lender has exported it", lambda: "1-2 (0403:6001)" in caplog.text)

    made: list[Announced] = []
    caplog.set_level("INFO")
    monkeypatch.setattr(announcing, "Announcement", Slow)
    with serve(["all"], listen=ANY, announce=True, bus=bus):
        wait_until("it is announced", lambda: len(made[0].devices[-1]) == 2)


def test_of_two_changes_at_once_the_last_is_announced(
    bus: FakeBus, announced: list[Announced], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each on its thread: what the first one has seen must not replace what the second one has."""
    looking, second, seen = threading.Event(), threading.Event(), Announcing._devices
    bus.plug("1-2")
    with serve(["1-1", "1-3"], listen=ANY, announce=True, bus=bus) as server:

        def slowly(announcing: Announcing) -> list[AnnouncedDevice]:
            found = seen(announcing)
            if len(found) == 2 and not looking.is_set():
                looking.set()
                bus.plug("1-3")
                second.wait(0.5)  # it has to wait
            return found

        def update(made: Announced, devices: list[AnnouncedDevice]) -> None:
            made.devices.append(devices)
            if len(devices) == 3:
                second.set()

        monkeypatch.setattr(Announcing, "_devices", slowly)
        monkeypatch.setattr(Announced, "update", update)
        server.add_rule("1-2")
        assert second.wait(20)
        assert len(announced[0].devices[-1]) == 3


def test_where_it_is_announced_without_a_word(bus: FakeBus, announced: list[Announced]) -> None:
    with serve(["all"], listen=ANY, bus=bus):
        assert not announced
    with serve(["all"], listen=[ANY, "0.0.0.0:0"], allow_public=True, bus=bus) as server:
        assert [made.port for made in announced] == [server.addresses[1][1]]
        assert announced[0].name == socket.gethostname()
    with serve(["all"], listen="0.0.0.0:0", allow="192.0.2.0/24", announce=False, bus=bus):
        assert len(announced) == 1
    with serve(["all"], listen=ANY, tls="0.0.0.0:0", bus=bus) as server:
        assert server.tls is not None
        port = server.tls.addresses[0][1]
        assert [(made.port, made.listening, made.tls_port) for made in announced[1:]] == [(port, ["0.0.0.0"], port)]


# -- the configuration


def configure(text: str) -> Path:
    path = Path(configuration_path())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def configured(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    """A server that follows the configuration, when the test has it look."""
    monkeypatch.setattr(local_server, "FollowedFile", lambda path, on_change: NotFollowed())
    bus.plug("1-2")
    configure('[server]\nexports = ["1-1"]\n')
    with serve(listen=ANY, bus=bus) as server:
        yield server


class NotFollowed:
    def close(self) -> None:
        """There is nothing to close."""


def test_what_the_configuration_says_is_exported(configured: LocalServer) -> None:
    assert configured.rules == ["1-1"]
    configure('[server]\nexports = ["1-2"]\n')
    assert configured.reload()
    assert [info.busid for info in configured.devices] == ["1-2"]
    configure("")
    assert configured.reload()
    assert configured.devices == []


@pytest.mark.parametrize(
    ("text", "line"), [('[server]\nexports = ["1-2", "zz"]', 2), ("[server]\nexports = [\n", 3), ("[server]\n\nx=1", 3)]
)
def test_a_damaged_configuration_keeps_the_last_good_exports(
    text: str, line: int, configured: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    path = configure(text)
    assert not configured.reload()
    assert [info.busid for info in configured.devices] == ["1-1"]
    assert str(path) in caplog.text
    assert f"line {line}" in caplog.text
    assert "what was exported before still is" in caplog.text


def test_without_a_rule_it_says_what_to_write(bus: FakeBus) -> None:
    with pytest.raises(UsbipError, match=r"nothing is to be exported: .*exports = \[.*in .*config\.toml"):
        serve(listen=ANY, bus=bus)


def test_a_file_that_comes_changes_and_goes_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen = threading.Semaphore(0)
    calls: list[None] = []

    def on_change() -> None:
        seen.release()
        calls.append(None)
        if len(calls) == 2:
            raise ValueError("what fails once")

    followed = FollowedFile(str(path), on_change, interval=0.005)
    for change in (lambda: path.write_text("1"), lambda: path.write_text("22"), path.unlink):
        change()
        assert seen.acquire(timeout=20)
    followed.close()
    followed.close()


def test_a_file_that_is_just_being_written_is_not_followed_yet(tmp_path: Path) -> None:
    """An editor empties it, or moves it aside, before it is whole again."""
    path = tmp_path / "file"
    path.write_text("whole")
    seen: list[str] = []
    followed = FollowedFile(str(path), lambda: seen.append(path.read_text()), interval=200.0)
    path.write_text("")
    followed.look()
    path.unlink()
    followed.look()
    path.write_text("whole again")
    followed.look()
    assert seen == []
    followed.look()
    followed.look()
    assert seen == ["whole again"]
    followed.close()


def test_a_change_that_cannot_be_read_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file"
    answers: list[bool | Exception] = [False, OSError(5, "I/O error"), OSError(5, "I/O error"), True]

    def on_change() -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    followed = FollowedFile(str(path), on_change, interval=200.0)
    path.write_text("changed")
    followed.look()
    for left in (3, 2, 1, 0, 0, 0):
        followed.look()
        assert len(answers) == left
    followed.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"a change of {path} cannot be followed: OSError: [Errno 5] I/O error"
    ]


@pytest.mark.skipif(os.name == "nt", reason="there st_ctime is when the file was made")
def test_a_change_of_the_same_size_and_time_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("allow")
    before = path.stat()
    seen: list[str] = []
    followed = FollowedFile(str(path), lambda: seen.append(path.read_text()), interval=200.0)
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of files has steps
        path.write_text("deny ")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    followed.look()
    followed.look()
    assert seen == ["deny "]
    followed.close()


def test_a_change_while_the_server_starts_is_followed(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    configure('[server]\nexports = ["1-1"]\n')
    bus.plug("1-2")

    def changed(path: str, on_change: object) -> NotFollowed:
        configure('[server]\nexports = ["1-2"]\n')
        return NotFollowed()

    monkeypatch.setattr(local_server, "FollowedFile", changed)
    with serve(listen=ANY, bus=bus) as server:
        assert server.rules == ["1-2"]


def test_rules_that_are_added_at_the_same_time_are_all_there(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(["1-1"], listen=ANY, bus=bus) as server:
        adding, first = server._lender.set_rules, threading.Event()
        other = threading.Thread(target=server.add_rule, args=("1-3",))

        def slow(rules: Rules) -> None:
            if not first.is_set():
                first.set()
                other.start()
                other.join(0.2)
            adding(rules)

        monkeypatch.setattr(server._lender, "set_rules", slow)
        server.add_rule("1-2")
        other.join(20)
        assert server.rules == ["1-1", "1-2", "1-3"]


def test_a_refused_import_is_one_sentence(bus: FakeBus) -> None:
    bus.plugged["1-1"].refuses = "another program has claimed it"
    with serve(["all"], listen=ANY, bus=bus) as server, pytest.raises(ImportRefused):
        named(server).import_device(Selector("1-1"))
