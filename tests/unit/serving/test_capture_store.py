"""Captures that a server keeps: begun, ended by whatever may end them, found again by the next server."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from tests.fakes.loopback_device import LoopbackDevice
from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from tests.waiting import wait_until
from usbip_capture.capture import sinks
from usbip_capture.demo.device import BULK_IN, BULK_OUT
from usbip_capture.device import Device
from usbip_capture.errors import CaptureError, LocalProtocolError
from usbip_capture.filters.language import FilterError
from usbip_capture.lending.lender import Exported
from usbip_capture.server.events import CAPTURE_ENDED, CAPTURE_STARTED, Event, Events
from usbip_capture.server.rules import ExportRule
from usbip_capture.serving import capture_store, stored_capture
from usbip_capture.serving.capture_store import CaptureStore, TooMany
from usbip_capture.serving.session_capture import DESCRIPTORS
from usbip_capture.serving.sessions import Sessions
from usbip_capture.serving.stored_capture import CaptureFacts
from usbip_capture.serving.stored_sinks import whole_blocks
from usbip_capture.syslog.severity import ERROR, NOTICE
from usbip_capture.usb.setup import get_descriptor, set_configuration
from usbip_capture.usb.urb import Completion, TransferType, Urb

SIZE = 512


class Lab:
    """A store, a device in use, and what happened."""

    def __init__(self, folder: Path, limit: int = 0) -> None:
        self.folder = folder
        self.events = Events(ring=100)
        self.sessions = Sessions(lambda busid: "192.0.2.1:5")
        self.store = CaptureStore(str(folder), self.sessions, self.events, limit=limit, server="192.0.2.9")
        inner = LoopbackDevice()
        self.device: Device = self.sessions.observed(inner, Exported(inner.info, ExportRule.parse("all")))
        self.run(Urb.control(get_descriptor(1, 0, 0, 18).pack()))
        self.run(Urb.control(set_configuration(1).pack()))

    def run(self, urb: Urb) -> Completion:
        return self.device.run(urb, 20)

    def echo(self, times: int = 1) -> None:
        for number in range(times):
            data = number.to_bytes(4, "big") * (SIZE // 4)
            self.run(Urb(TransferType.BULK, BULK_OUT, SIZE, data))
            assert self.run(Urb(TransferType.BULK, BULK_IN, SIZE)).data == data

    def echo_until_ended(self, capture_id: str) -> None:
        for _ in range(10_000):
            self.echo()
            if self.facts(capture_id).state != "running":
                return
        raise AssertionError("it goes on")

    def facts(self, capture_id: str) -> CaptureFacts:
        found = self.store.find(capture_id)
        assert found is not None
        return found

    def records(self, capture_id: str) -> list[CapturedRecord]:
        return [record for path in self.store.files(capture_id) for record in read_capture(path)]

    def reported(self, kind: str) -> list[Event]:
        return [event for event in self.events.after(0, 100) if event.kind == kind]

    def close(self) -> None:
        self.device.close()
        self.store.close()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "captures")


def test_one_begins_in_the_middle_and_has_what_came_before_and_everything_from_then_on(lab: Lab) -> None:
    lab.echo(3)
    begun = lab.store.start(["1-1"], name="the\x1b board", by="anna")
    assert begun.state == "running"
    lab.echo(5)
    ended = lab.store.stop(begun.id)
    lab.echo(3)
    assert ended is not None
    assert (ended.state, ended.error, ended.dropped, ended.by, ended.files) == ("stopped", "", 0, "anna", 1)
    records = lab.records(begun.id)
    assert ended.packets == len(records) == 4 + 5 * 2 * 2
    assert ended.bytes == sum(map(os.path.getsize, lab.store.files(begun.id)))
    assert [DESCRIPTORS in record.comments for record in records] == [True] * 4 + [False] * 20
    assert len(lab.reported(CAPTURE_STARTED)) == 1
    (event,) = lab.reported(CAPTURE_ENDED)
    assert (event.severity, event.text) == (NOTICE, rf"the\x1b board ({begun.id}): 24 packets, {ended.bytes} bytes")
    assert lab.store.stop(begun.id) == ended
    for path in (lab.folder, *lab.folder.iterdir()):
        assert not path.stat().st_mode & 0o077 or os.name == "nt"
    assert stat.S_IMODE(lab.folder.stat().st_mode) == 0o700 or os.name == "nt"
    lab.close()


def test_only_the_devices_and_urbs_that_are_wanted(lab: Lab) -> None:
    other = lab.store.start(["1-2", "ffff:1"])
    filtered = lab.store.start([], capture_filter="bulk and in")
    lab.echo(4)
    lab.store.close()
    assert lab.records(other.id) == []
    assert len(lab.records(filtered.id)) == lab.facts(filtered.id).packets == 8


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"devices": ["../x"]}, LocalProtocolError),
        ({"capture_filter": "bulk and"}, FilterError),
        ({"files": 4}, LocalProtocolError),
        ({"files": 1000, "max_bytes": 1 << 20}, LocalProtocolError),
        ({"max_bytes": 5}, LocalProtocolError),
    ],
)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(lab: Lab, given: dict[str, object], kind: type) -> None:
    with pytest.raises(kind):
        lab.store.start(**given)  # type: ignore[arg-type]
    assert list(lab.folder.iterdir()) == []
    assert lab.store.captures == []


def test_one_with_a_limit_ends_there_and_can_be_read(lab: Lab) -> None:
    limited, other = lab.store.start(max_bytes=20_000), lab.store.start()
    lab.echo_until_ended(limited.id)
    facts = lab.facts(limited.id)
    assert facts.state == "stopped"
    assert facts.error == "it has the 20000 bytes that it was to have at most"
    assert 19_000 < facts.bytes <= 20_000
    assert facts.packets == len(lab.records(limited.id))
    assert lab.facts(other.id).state == "running"
    lab.close()
    assert lab.facts(other.id).packets == len(lab.records(other.id))


def test_a_ring_goes_on_and_keeps_its_latest_files(lab: Lab) -> None:
    ring = lab.store.start(max_bytes=10_000, files=3)
    lab.echo(100)
    lab.close()
    facts = lab.facts(ring.id)
    assert (facts.state, facts.files, facts.error) == ("stopped", 3, "")
    assert facts.bytes <= 31_000
    records = lab.records(ring.id)
    assert facts.packets == len(records)
    last = [record.usb for record in records if record.usb is not None][-1]
    assert last.data[:4] == (99).to_bytes(4, "big")


def test_all_share_the_room_and_a_deleted_one_gives_it_back(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "captures", limit=60_000)
    ring, plain = lab.store.start(max_bytes=8192, files=2), lab.store.start()
    lab.echo_until_ended(plain.id)
    facts = lab.facts(plain.id)
    assert facts.state == "failed"
    assert "raise captures-size" in facts.error
    assert facts.packets == len(lab.records(plain.id))
    lab.store.stop(ring.id)
    assert sum(facts.bytes for facts in lab.store.captures) <= 60_000
    wait_until("it is reported", lambda: len(lab.reported(CAPTURE_ENDED)) == 2)
    (event,) = [event for event in lab.reported(CAPTURE_ENDED) if event.severity == ERROR]
    assert facts.error[:100] in event.text
    with pytest.raises(CaptureError, match="delete some"):
        lab.store.start(max_bytes=30_000, files=2)
    lab.store.delete(ring.id)
    assert lab.store.delete(plain.id)
    assert not lab.store.delete(plain.id)
    assert list(lab.folder.iterdir()) == []
    lab.store.start()
    lab.close()


def test_no_other_one_begins_when_the_room_is_used_up(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "captures", limit=10_000)
    lab.echo_until_ended(lab.store.start().id)
    with pytest.raises(CaptureError, match="delete some"):
        lab.store.start()
    assert len(lab.store.captures) == 1
    lab.close()


@pytest.mark.parametrize("given", [{}, {"max_bytes": 40_000, "files": 2}], ids=["file", "ring"])
def test_a_full_disk_ends_that_capture_and_nothing_else(
    given: dict[str, int], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, other = lab.store.start(name="full", **given), lab.store.start()  # type: ignore[arg-type]
    write = sinks._write_all
    (path,) = lab.store.files(full.id)

    def write_all(fd: int, buffers: list[bytes]) -> int:
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            room = max(20_000 - os.fstat(fd).st_size, 0)
            if room < sum(map(len, buffers)):
                write(fd, [b"".join(buffers)[:room]])  # as a disk takes what it has room for
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, buffers)

    monkeypatch.setattr(sinks, "_write_all", write_all)
    lab.echo_until_ended(full.id)
    lab.echo(3)
    facts = lab.facts(full.id)
    assert facts.state == "failed"
    assert "the disk is full" in facts.error
    assert facts.bytes > 19_000
    assert len(lab.records(full.id)) == facts.packets
    (event,) = wait_until("it is reported", lambda: lab.reported(CAPTURE_ENDED))
    assert (event.severity, event.text.partition(" (")[0]) == (ERROR, "full")
    assert lab.facts(other.id).state == "running"
    lab.close()
    assert lab.facts(other.id).state == "stopped"


def test_one_whose_file_cannot_be_made_does_not_begin(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(folder: str, facts: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(capture_store, "save", no_file)
    with pytest.raises(CaptureError, match="cannot begin"):
        lab.store.start()
    assert list(lab.folder.iterdir()) == []
    assert lab.store.captures == []
    lab.close()


def test_a_further_server_lists_those_of_an_earlier_one(lab: Lab) -> None:
    ended, cut = lab.store.start(name="ended"), lab.store.start(name="cut", devices=["1-1"])
    lab.echo(2)
    lab.store.stop(ended.id)
    (path,) = lab.store.files(cut.id)
    before = b"".join(whole_blocks(path))
    about = (lab.folder / f"{cut.id}.json").read_bytes()
    lab.close()
    (lab.folder / f"{cut.id}.json").write_bytes(about)  # as if it had been killed
    Path(path).write_bytes(before + before[-40:-3])
    (lab.folder / "20200101-000000-abcdef.json").write_text('{"name": 7}')
    (lab.folder / "20200101-000000-abcde0.json").write_text("[" * 100_000)
    (lab.folder / "notes.json").write_text("{}")

    store = CaptureStore(str(lab.folder), Sessions(), Events())
    found = {facts.name: facts for facts in store.captures}
    assert found.keys() == {"ended", "cut"}
    assert found["ended"] == lab.facts(ended.id)
    assert (found["cut"].state, found["cut"].packets) == ("stopped", None)
    assert "the server has ended before" in found["cut"].error
    assert b"".join(whole_blocks(path)) == before
    assert store.delete(cut.id)
    assert not Path(path).exists()
    store.close()


@pytest.mark.skipif(os.name == "nt", reason="a folder cannot be locked there")
def test_no_other_server_has_the_same_folder(lab: Lab) -> None:
    with pytest.raises(CaptureError, match="another program"):
        CaptureStore(str(lab.folder), Sessions(), Events())
    lab.close()
    CaptureStore(str(lab.folder), Sessions(), Events()).close()


def test_a_path_is_not_an_id(lab: Lab) -> None:
    (lab.folder.parent / "secret.pcapng").write_text("x")
    for capture_id in ("../secret", "", ".", "*", "/etc/passwd"):
        assert lab.store.find(capture_id) is None
        assert lab.store.files(capture_id) == []
        assert not lab.store.delete(capture_id)
    lab.close()


def test_so_many_run_at_a_time(lab: Lab) -> None:
    begun = [lab.store.start() for _ in range(capture_store.MAX_RUNNING)]
    with pytest.raises(TooMany):
        lab.store.start()
    lab.store.stop(begun[0].id)
    lab.store.start()
    lab.close()
    with pytest.raises(CaptureError):
        lab.store.start()


def test_those_that_begin_and_end_together_are_all_noted(lab: Lab) -> None:
    def works() -> None:
        for _ in range(5):
            facts = lab.store.start()
            lab.store.stop(facts.id)
            lab.store.delete(facts.id)

    threads = [threading.Thread(target=works) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert lab.store.captures == []
    assert len(lab.reported(CAPTURE_ENDED)) == len(lab.reported(CAPTURE_STARTED)) == 20
    assert list(lab.folder.iterdir()) == []
    lab.close()


def test_what_is_known_of_each_is_written_down(lab: Lab) -> None:
    facts = lab.store.start(["1209:1"], capture_filter=" bulk ", max_bytes=8000, files=2, name=" n " + "x" * 100)
    wait_until("it is written", lambda: list(lab.folder.glob("*.json")))
    saved = json.loads((lab.folder / f"{facts.id}.json").read_text())
    assert (saved["devices"], saved["filter"], saved["ring"], saved["max_bytes"]) == (["1209:0001"], "bulk", 2, 8000)
    assert len(saved["name"]) == 64
    lab.close()


def test_what_is_deleted_while_it_ends_does_not_come_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops it notes how it has ended when somebody else has deleted it already."""
    capture = lab.store.start().id
    save = stored_capture.save

    def late(folder: str, facts: CaptureFacts) -> None:
        monkeypatch.setattr(capture_store, "save", save)
        assert lab.store.delete(capture)
        save(folder, facts)

    monkeypatch.setattr(capture_store, "save", late)
    assert lab.store.stop(capture) is None
    assert not lab.store.captures
    assert [path.name for path in lab.folder.iterdir() if path.name.startswith(capture)] == []
    assert not lab.store._room.used


def test_what_cannot_be_deleted_is_listed_still(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = lab.store.start().id

    def refuse(folder: str, capture_id: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as context:
        context.setattr(capture_store, "remove", refuse)
        with pytest.raises(CaptureError, match="cannot be deleted"):
            lab.store.delete(capture)
    assert lab.facts(capture).state == "stopped"
    assert lab.store.delete(capture)
