"""What happens at a server, as packets of a capture."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.oracles.pcapng_reader import read_capture
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.net.listening import Peer
from usbip_capture.server.events import EXPORTED, IMPORTED, REFUSED, STARTED, Event, Events
from usbip_capture.sessions.event_capture import EventCapture
from usbip_capture.sessions.session_capture import DeviceChoice
from usbip_capture.syslog.severity import NOTICE, WARNING

PEER = Peer("192.0.2.7", 40000)


def captured(folder: Path, *patterns: str) -> list[tuple[int, str]]:
    path = folder / "x.pcapng"
    times = iter(range(1, 100))
    events = Events(lambda: float(next(times)))
    events.emit(STARTED)
    with PcapWriter(path) as writer, closing(EventCapture(events, writer, "pi", DeviceChoice(patterns))) as capture:
        events.emit(IMPORTED, peer=PEER, busid="1-1", device="303a:4001:S-1")
        events.emit(EXPORTED, NOTICE, busid="1-2", device="0403:6001")
        events.emit(REFUSED, WARNING, peer=PEER, text="by\x1b[31m rule")
        capture.close()
        events.emit(STARTED)
    found = list(read_capture(path))
    assert {(one.interface.name, one.interface.description) for one in found} == {
        ("events0", "events of the server pi")
    }
    return [(one.timestamp_ns // 10**9, one.data[one.data.index(b"<") :].decode()) for one in found]


def test_in_order_with_their_times_and_severities(tmp_path: Path) -> None:
    first, second, third = captured(tmp_path)
    assert first == (2, "<134>client 192.0.2.7:40000 has imported 1-1 (303a:4001:S-1)")
    assert second == (3, "<133>exported: 1-2 (0403:6001)")
    assert third[0] == 4
    assert third[1].startswith("<132>client 192.0.2.7:40000 is refused: by")
    assert "\x1b" not in third[1]


@pytest.mark.parametrize("pattern", ["1-1", "303a:4001", "303a:4001:S-1", "class:03"])
def test_of_chosen_devices_and_of_none(pattern: str, tmp_path: Path) -> None:
    found = [text for _, text in captured(tmp_path, pattern)]
    assert any("1-1" in text for text in found)
    assert any("refused" in text for text in found)
    # Which class another device has is not known.
    assert any("1-2" in text for text in found) == (pattern == "class:03")


def test_devices_of_which_only_the_port_is_known() -> None:
    choice = DeviceChoice(["303a:4001:S-1"])
    assert choice.may_mean("1-1", "")
    assert not choice.may_mean("1-1", "303a:4001")
    assert not choice.may_mean("1-1", "303a:4001:S-12")


def test_one_who_watches_and_fails_holds_up_nobody() -> None:
    events, seen = Events(), []

    def fails(event: Event) -> None:
        raise ValueError("no")

    watches = [events.watch(fails), events.watch(lambda event: seen.append(event.kind))]
    events.emit(STARTED)
    watches[1].close()
    watches[1].close()
    events.emit(EXPORTED)
    assert seen == [STARTED]
    events.close()
    watches[0].close()
