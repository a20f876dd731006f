"""Mutated sessions at the observer and at the converter: nothing comes out but events and counted reasons.

The seed is fixed. How long it goes on: a fifth of USBIP_CAPTURE_FUZZ_SECONDS, or 2 s. By hand, with another seed:
`python -m tests.fuzz.test_fuzz_convert SECONDS SEED`.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

from tests.builders.conversion import convert
from tests.builders.tcp_recording import CLIENT, SERVER, Turn, golden_turns, packet, pcap, segments
from tests.builders.usbip_sessions import session
from usbip_capture.errors import CaptureError
from usbip_capture.wire.observed import Completed, Submitted
from usbip_capture.wire.observer import Observer

SEED = 20_250_101
SECONDS = float(os.environ.get("USBIP_CAPTURE_FUZZ_SECONDS", "10")) * 0.2
GOLDEN = Path(__file__).parents[1] / "golden"
#: How each reason begins that may be counted.
REASONS = (
    "RET_SUBMIT ",
    "RET_UNLINK without its CMD_UNLINK",
    "URB that was never answered",
    "devid other than that of the import",
    "found back into what the ",
    "gap in what the ",
    "gave up: ",
    "impossible CMD_SUBMIT",
    "isochronous URB with a gap in it",
    "message of unknown kind from the ",
    "nothing that the server sent is in the recording",
)
#: Numbers that have broken parsers before.
_EDGES = (0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def sessions() -> list[list[Turn]]:
    """What is mutated: recorded sessions, and made ones with every kind of transfer."""
    golden = [golden_turns(path)[:150] for path in sorted(GOLDEN.glob("*/usbip.pcap"))]
    return [*golden, session(rounds=5), session(rounds=3, size=5000)]


def mutated(turns: list[Turn], random: Random) -> list[Turn]:
    """Some messages changed, lost, doubled, swapped, cut, or sent to the wrong side."""
    out = list(turns)
    for _ in range(random.randrange(1, 8)):
        at = random.randrange(len(out))
        side, data = out[at]
        what = random.randrange(7)
        if what == 0:
            out[at] = side, field_changed(data, random)
        elif what == 1:
            out[at] = side, data[: random.randrange(len(data) + 1)]
        elif what == 2:
            out.insert(at, out[random.randrange(len(out))])
        elif what == 3:
            del out[at]
        elif what == 4:
            other = random.randrange(len(out))
            out[at], out[other] = out[other], out[at]
        elif what == 5:
            out[at] = 1 - side, data
        else:
            out[at] = side, data + random.randbytes(random.randrange(200))
        if not out:
            return list(turns)
    return out


def field_changed(data: bytes, random: Random) -> bytes:
    """One 32-bit field, mostly of the header, has another value."""
    raw = bytearray(data)
    if len(raw) < 4:
        return random.randbytes(4)
    at = random.randrange(0, min(len(raw) - 3, 48), 4) if random.random() < 0.8 else random.randrange(len(raw) - 3)
    value = random.choice(_EDGES) if random.random() < 0.7 else random.randrange(1 << 32)
    raw[at : at + 4] = value.to_bytes(4, "big")
    return bytes(raw)


def fuzz_observer(turns: list[Turn], random: Random) -> Counter[str]:
    """Each URB is completed at most once, after its submission."""
    observer = Observer(from_start=random.random() < 0.8)
    out: dict[int, int] = {}
    stamp = 0
    for stamp, (side, data) in enumerate(mutated(turns, random)):
        if random.random() < 0.02:
            gap = observer.client_gap if side == CLIENT else observer.server_gap
            events = gap(len(data), stamp)
        else:
            events = (observer.client if side == CLIENT else observer.server)(data, stamp)
        for event in events:
            if isinstance(event, Submitted):
                out[event.seqnum] = 1
            elif isinstance(event, Completed):
                assert out.pop(event.seqnum) == 1
    observer.closed(stamp)
    return observer.counts


def fuzz_converter(turns: list[Turn], random: Random) -> Counter[str]:
    """What is written can be read again, whatever the recording was."""
    sent = segments(mutated(turns, random), size=random.choice([60, 500, 1448, 60000]))
    for _ in range(random.randrange(6)):
        at = random.randrange(len(sent))
        what = random.randrange(4)
        if what == 0:
            sent[at] = replace(sent[at], seq=random.choice([*_EDGES, sent[at].seq ^ 1 << random.randrange(32)]))
        elif what == 1:
            sent[at] = replace(sent[at], flags=random.randrange(256), ack=random.randrange(1 << 32))
        elif what == 2:
            sent.insert(random.randrange(len(sent)), sent.pop(at))
        else:
            sent[at] = replace(sent[at], side=SERVER - sent[at].side)
    raw = bytearray(pcap((s.timestamp_ns, packet(s)) for s in sent))
    for _ in range(random.randrange(4) if random.random() < 0.3 else 0):
        raw[random.randrange(24, len(raw))] = random.randrange(256)
    try:
        got = convert(bytes(raw), record_unlinks=random.random() < 0.5, ports={3240} if random.random() < 0.3 else None)
    except CaptureError:
        return Counter()  # of the first packet already nothing could be read
    assert len(got.records) >= got.converter.urbs
    return got.counts


def fuzz(seconds: float, seed: int) -> tuple[int, Counter[str]]:
    """How many mutants were tried, and what was counted."""
    originals = sessions()
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    for number in count():
        random = Random(f"{seed} {number}")
        try:
            target = fuzz_converter if number % 4 == 0 else fuzz_observer
            counts += target(random.choice(originals), random)
        except Exception as error:
            raise AssertionError(f"mutant {number} of seed {seed}") from error
        if time.monotonic() >= end and number >= 40:
            return number + 1, counts
    raise AssertionError("unreachable")


def test_mutated_sessions() -> None:
    tried, counts = fuzz(SECONDS, SEED)
    assert tried > 40
    assert not [reason for reason in counts if not reason.startswith(REASONS)]
    assert len(counts) >= 5


if __name__ == "__main__":
    print(*fuzz(float(sys.argv[1]), int(sys.argv[2])), sep="\n")  # noqa: T201
