"""What a viewer of a stream gets, and what becomes of more than it reads."""

from __future__ import annotations

import asyncio

import pytest

from usbip_capture.records.pcapng import STATISTICS, pack_packet, without_packets
from usbip_capture.web import outlet
from usbip_capture.web.outlet import Outlet

PACKET = pack_packet(0, 1, bytes(100))
OTHER = b"\x01\0\0\0\x0c\0\0\0\x0c\0\0\0"


def run(made: list[bytes], *, alive: float = 0.0, parts: int = 1) -> tuple[list[bytes], int]:
    """What is read of this, and how much is dropped."""

    async def read() -> tuple[list[bytes], int]:
        found = Outlet(asyncio.get_running_loop(), alive)
        for blocks in made:
            found.put(blocks)
        got = []
        async for part in found.parts():
            got.append(part)
            if len(got) == parts:
                break
        found.leave()
        found.put(PACKET)
        assert found.left
        return got, found.dropped

    return asyncio.run(read())


def test_all_that_waits_comes_at_once() -> None:
    assert run([OTHER, PACKET, PACKET]) == ([OTHER + PACKET + PACKET], 0)


def test_what_is_too_much_is_dropped_but_for_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "MOST", 2 * len(PACKET))
    (part,), dropped = run([PACKET, PACKET, PACKET + OTHER + PACKET, PACKET])
    assert part.startswith(PACKET + PACKET + OTHER)
    assert dropped == 3
    assert b"3 packets found no room: this viewer is slow" in part
    assert without_packets(part)[0] == 3


def test_who_asks_for_it_hears_something_again_and_again() -> None:
    first, *others = run([PACKET], alive=0.001, parts=4)[0]
    assert first == PACKET
    assert [part[0] for part in others] == [STATISTICS] * 3


def test_without_packets() -> None:
    assert without_packets(OTHER + PACKET + OTHER + PACKET) == (2, OTHER + OTHER)
    assert without_packets(b"") == (0, b"")
