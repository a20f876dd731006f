"""What is missing since the last time, and the file that has it."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from usbip_capture.errors import ServerUnreachable
from usbip_capture.fleet import memory as fleet_memory
from usbip_capture.fleet.answers import BY_DASHBOARD, FleetAnswer, FleetDevice
from usbip_capture.fleet.members import Member
from usbip_capture.fleet.memory import FleetMemory, read_memory, write_memory
from usbip_capture.servers import memory as servers_memory
from usbip_capture.servers.address import ServerAddress
from usbip_capture.servers.memory import MAX_AGE

NOW = 1_800_000_000


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("usbip_capture.fleet.memory.time.time", lambda: float(NOW))
    return tmp_path / "usbip-capture" / "fleet"


def member(name: str, *, announced: bool = False) -> Member:
    return Member(name, ServerAddress(name), announced=announced)


def answer(name: str, *devices: tuple[str, str], announced: bool = False) -> FleetAnswer:
    """devices: busid and serial number of each."""
    found = tuple(FleetDevice(busid, "303a:4001", "Board", serial) for busid, serial in devices)
    return FleetAnswer(member(name, announced=announced), BY_DASHBOARD, devices=found)


def busids(memory: FleetMemory, *answers: FleetAnswer, now: int = NOW) -> dict[str, list[str]]:
    """What is missing, by server."""
    missing = memory.compare(answers, now)
    return {key: [device.busid for device in devices] for key, devices in missing.by_key.items()}


def test_a_device_is_missing_until_it_is_there_again() -> None:
    memory = FleetMemory()
    both = answer("pi", ("1-1", "A"), ("1-2", "B"))
    assert busids(memory, both) == {}
    one = answer("pi", ("1-1", "A"))
    assert busids(memory, one) == {"pi": ["1-2"]}
    assert busids(memory, one, now=NOW + 5) == {"pi": ["1-2"]}
    assert memory.servers["pi"].devices[-1].seen == NOW
    assert busids(memory, both) == {}


def test_at_another_port_or_server_it_is_not_missing() -> None:
    memory = FleetMemory()
    assert busids(memory, answer("pi", ("1-1", "A"), ("1-2", "B"), ("1-3", "")), answer("lab")) == {}
    assert busids(memory, answer("pi", ("1-4", "A"), ("1-5", "")), answer("lab", ("2-1", "B"))) == {"pi": ["1-3"]}


def test_clones_with_the_same_serial_number_are_missed() -> None:
    memory = FleetMemory()
    busids(memory, answer("pi", ("1-1", "0001"), ("1-2", "0001")))
    assert busids(memory, answer("pi", ("1-1", "0001"))) == {"pi": ["1-2"]}


def test_of_a_server_that_does_not_answer_all_is_kept() -> None:
    memory = FleetMemory()
    busids(memory, answer("pi", ("1-1", "A")))
    assert busids(memory, FleetAnswer(member("pi"), error=ServerUnreachable("pi"))) == {}
    known = memory.known(member("pi"))
    assert known is not None
    assert len(known.devices) == 1


def test_after_a_month_it_is_not_expected_any_more() -> None:
    memory = FleetMemory()
    busids(memory, answer("pi", ("1-1", "A")))
    assert busids(memory, answer("pi"), now=NOW + MAX_AGE - 1) == {"pi": ["1-1"]}
    assert busids(memory, answer("pi"), now=NOW + MAX_AGE) == {}


def test_who_does_not_announce_itself_any_more() -> None:
    memory = FleetMemory()
    memory.compare([answer("Lab Pi", ("1-1", "A"), announced=True)], NOW, {"announced Lab Pi"})
    assert memory.compare([], NOW).servers == []  # nobody has looked
    missing = memory.compare([], NOW, set())
    assert [server.name for server in missing.servers] == ["Lab Pi"]
    assert missing.count == 1
    memory.accept(missing)
    assert memory.compare([], NOW, set()).count == 0


def test_what_is_accepted_is_not_missing() -> None:
    memory = FleetMemory()
    busids(memory, answer("pi", ("1-1", "A"), ("1-2", "B")))
    memory.accept(memory.compare([answer("pi", ("1-1", "A"))], NOW))
    assert busids(memory, answer("pi", ("1-1", "A"))) == {}


def test_it_is_written_for_its_owner_and_read_again(cache: Path) -> None:
    memory = FleetMemory()
    busids(memory, answer("pi", ("1-1", "A\n\x1b")), answer("lab", ("1-2", "é")))
    write_memory(memory, memory.servers)
    assert stat.S_IMODE(os.stat(cache).st_mode) == 0o600
    assert read_memory().servers == memory.servers
    servers_memory.forget_everything()
    assert not cache.parent.exists()


def test_programs_at_the_same_time_lose_nothing(cache: Path) -> None:
    def one(number: int) -> None:
        memory = FleetMemory()
        busids(memory, answer(f"pi{number}", ("1-1", "A")))
        write_memory(memory, memory.servers)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_memory().servers.keys() == {f"pi{number}" for number in range(8)}
    assert [name for name in os.listdir(cache.parent) if name.endswith(".part")] == []


def test_what_is_forgotten_goes_and_old_servers_too(cache: Path) -> None:
    memory = FleetMemory()
    busids(memory, answer("old", ("1-1", "A")), now=NOW - MAX_AGE)
    busids(memory, answer("pi"), answer("lab"))
    write_memory(memory, memory.servers)
    assert read_memory().servers.keys() == {"pi", "lab"}
    write_memory(memory, (), ["lab"])
    assert read_memory().servers.keys() == {"pi"}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"servers": []}', '{"servers": {"pi": 1}}', "[" * 5000,
     '{"servers": {"pi": {"devices": 7}}}',
     '{"servers": {"pi": {"name": 3, "seen": "x", "announced": 1, "devices": [1, {"busid": 5, "seen": -1e400}]}}}'],
)  # fmt: skip
def test_whatever_is_in_the_file(cache: Path, content: str) -> None:
    cache.parent.mkdir()
    cache.write_text(content)
    memory = read_memory()
    assert busids(memory, answer("pi", ("1-1", "A"))).keys() <= {"pi"}
    write_memory(memory, memory.servers)
    assert json.loads(cache.read_text())["servers"]["pi"]["seen"] == NOW


def test_a_cache_that_cannot_be_written_is_in_nobodys_way(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = FleetMemory()
    busids(memory, answer("pi"))

    def full(path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fleet_memory, "Replacement", full)
    write_memory(memory, memory.servers)
    assert "cannot be remembered: No space left on device" in caplog.text
