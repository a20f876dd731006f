"""`syslog.framing`: each way of framing, all of them mixed, in any portions; and what senders do wrong."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.syslog.framing import INCOMPLETE, MAX_COUNT, TOO_LONG, WRONG_COUNT, Framer, datagram_frames

A, B = b"<13>1 - a b - - - first", b"<14>1 - a b - - - second"


def counted(message: bytes) -> bytes:
    return b"%d %s" % (len(message), message)


def esp(message: bytes) -> bytes:
    """As the ESP32 bridge does: an octet count that covers the LF at the end."""
    return counted(message + b"\n")


def frames(framer: Framer, *chunks: bytes) -> list[bytes]:
    return [frame for chunk in chunks for frame, _ in framer.feed(chunk)]


STREAMS = {
    "counted": counted(A) + counted(B),
    "lf": A + b"\n" + B + b"\n",
    "crlf": A + b"\r\n" + B + b"\r\n",
    "nul": A + b"\0" + B + b"\0",
    "esp": esp(A) + esp(B),
    "counted, then lf": counted(A) + b"\n" + counted(B) + b"\n",
    "lf after counted": counted(A) + B + b"\n",
    "counted after nul": A + b"\0" + counted(B),
    "lf cr": A + b"\n\r" + B + b"\n\r",
    "empty lines": b"\n\r\n\0" + A + b"\n\n" + counted(B) + b"\n\n",
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_every_framing_in_any_portions(stream: bytes) -> None:
    whole = Framer()
    assert frames(whole, stream) == [A, B]
    assert whole.end() == []
    bytewise = Framer()
    got = frames(bytewise, *(stream[i : i + 1] for i in range(len(stream))))
    assert got == [A, B]
    assert (bytewise.too_long, bytewise.wrong_counts, bytewise.incomplete, bytewise.discarded) == (0, 0, 0, 0)


def test_lines_that_only_look_counted() -> None:
    lines = [b"123 apples", b"5", b"0 <13>zero", b"12 ", b"E (12) wifi: 3 <4", b"3 <- 4", b"12 <3 x"]
    assert frames(Framer(), b"\n".join(lines) + b"\n") == [line.rstrip(b"\n") for line in lines]


def test_line_breaks_within_a_counted_frame_end_nothing() -> None:
    message = b"<14>1 - esp32 esp - - - I (1) a: x\n  y\n<not a priority>\r\n  z"
    assert frames(Framer(), esp(message) + esp(A)) == [message, A]


@given(
    st.lists(
        st.tuples(st.binary(max_size=40).filter(lambda b: not set(b) & set(b"\r\n\0")), st.sampled_from("clne")),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_messages_come_out_as_they_went_in(messages: list[tuple[bytes, str]], chance: random.Random) -> None:
    stream, expected = b"", []
    for text, kind in messages:
        message = b"<14>" + text
        expected.append(message)
        stream += {"c": counted(message) + b"\n", "l": message + b"\n", "n": message + b"\0", "e": esp(message)}[kind]
    framer, got = Framer(), []
    while stream:
        size = chance.randint(1, 30)
        got += frames(framer, stream[:size])
        stream = stream[size:]
    assert got == expected
    assert framer.end() == []
    assert framer.frames == len(expected)


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_no_garbage_is_lost_silently_or_kept_for_ever(chunks: list[bytes]) -> None:
    framer = Framer(max_length=64)
    out = [frame for chunk in chunks for frame in framer.feed(chunk)] + framer.end()
    assert all(0 < len(frame) <= 64 + 22 for frame, _ in out)
    assert framer.frames == len(out)
    assert framer.feed(b"") == []
    whole = b"".join(chunks)
    given_out = sum(len(frame) for frame, _ in out) + framer.discarded
    # What is neither given out nor discarded is counts, delimiters and what else ends a line.
    assert given_out <= len(whole)
    if not any(byte in b"\r\n\0 " for byte in whole):
        assert given_out == len(whole)


# -- what senders do wrong


@pytest.mark.parametrize("too_much", [1, 3, 30, 400])
def test_a_count_that_is_too_large(too_much: int) -> None:
    stream = b"%d %s\n" % (len(A) + 1 + too_much, A) + esp(B) * 4
    framer = Framer()
    assert frames(framer, stream) == [A, B, B, B, B]
    assert framer.wrong_counts == 1


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("too_few", [1, 5, 20])
def test_a_count_that_is_too_small(too_few: int, step: int) -> None:
    stream = b"%d %s\n" % (len(A) - too_few, A) + esp(B)
    framer = Framer()
    got = frames(framer, *(stream[i : i + step] for i in range(0, len(stream), step)))
    assert b"".join(got) == A + B
    assert got[-1] == B


def test_a_count_that_is_too_small_with_no_line_breaks() -> None:
    framer = Framer()
    stream = b"%d %s" % (len(A) - 3, A) + counted(B) + counted(A)
    assert framer.feed(stream) == [(A, WRONG_COUNT), (B, ""), (A, "")]


@pytest.mark.parametrize("count", [10**12, MAX_COUNT + 1, 10**19])
def test_an_absurd_count(count: int) -> None:
    framer = Framer()
    assert framer.feed(b"%d %s\n" % (count, A) + esp(B)) == [(A, WRONG_COUNT), (B, "")]
    assert framer.wrong_counts == 1


@pytest.mark.parametrize("step", [1, 13, 50, 100_000])
@pytest.mark.parametrize("frame", [counted, lambda message: message + b"\n", lambda message: message + b"\0"])
def test_messages_that_are_too_long_are_cut(frame: object, step: int) -> None:
    assert callable(frame)
    long = b"<13>" + b"x" * 500
    framer = Framer(max_length=100)
    stream = frame(long) + counted(A) + frame(long) + frame(B) + frame(A)
    got = [found for i in range(0, len(stream), step) for found in framer.feed(stream[i : i + step])]
    assert got == [(long[:100], TOO_LONG), (A, ""), (long[:100], TOO_LONG), (B, ""), (A, "")]
    assert framer.too_long == 2
    assert framer.discarded == 2 * 404


def test_a_wrong_count_above_the_limit_loses_no_further_message() -> None:
    framer = Framer(max_length=100)
    stream = b"5000000 " + b"<13>" + b"x" * 300 + b"\n" + esp(A) + esp(B)
    chunks = [stream[i : i + 64] for i in range(0, len(stream), 64)]
    assert frames(framer, *chunks)[-2:] == [A, B]


def test_a_gigabyte_without_a_line_break() -> None:
    framer = Framer()
    chunk = bytes([120]) * (1 << 20)
    got = [found for _ in range(1024) for found in framer.feed(chunk)]
    assert [(len(frame), flaw) for frame, flaw in got] == [(64 << 10, TOO_LONG)]
    assert framer.discarded == (1 << 30) - (64 << 10)
    assert len(framer._buffer) == 0
    assert frames(framer, b"xxx\n" + A + b"\n") == [A]


@pytest.mark.parametrize("rest", [counted(A)[:-4], A[:-4]])
def test_what_the_end_of_the_connection_cuts_off(rest: bytes) -> None:
    framer = Framer()
    assert frames(framer, esp(B) + rest) == [B]
    assert framer.end() == [(A[:-4], INCOMPLETE)]
    assert framer.incomplete == 1
    assert framer.end() == []


def test_lines_after_a_count_that_nothing_fulfilled() -> None:
    framer = Framer()
    assert framer.feed(b"500 " + A + b"\n" + B + b"\n" + B[:9]) == []
    assert framer.end() == [(A, WRONG_COUNT), (B, ""), (B[:9], INCOMPLETE)]
    assert (framer.frames, framer.wrong_counts, framer.incomplete) == (3, 1, 1)


def test_searching_for_an_end_is_not_repeated_for_every_byte() -> None:
    framer = Framer(1 << 20)
    data = b"900000 <13>" + b"\n" * 400_000
    for i in range(0, len(data), 100):  # quadratic searching would take minutes here
        assert framer.feed(data[i : i + 100]) == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (A, [(A, "")]),
        (A + b"\n", [(A, "")]),
        (A + b"\0", [(A, "")]),
        (b"<14>two\nlines", [(b"<14>two\nlines", "")]),
        (b"I (1) a: x\r\nW (2) b: y\n", [(b"I (1) a: x", ""), (b"W (2) b: y", "")]),
        (counted(A), [(A, "")]),
        (esp(A), [(A, "")]),
        (b"99 " + A, [(A, WRONG_COUNT)]),
        (b"3 " + A, [(A, WRONG_COUNT)]),
        (b"\n", []),
        (b"", []),
    ],
)
def test_datagrams(data: bytes, expected: list[tuple[bytes, str]]) -> None:
    assert datagram_frames(data) == expected


#: Right frames of each kind, whatever is in the messages: `counted` ones may hold line breaks and even other frames.
BODIES = st.binary(max_size=30).map(lambda body: b"<14>" + body.replace(b"\0", b"?").strip(b"\r\n"))
RIGHT = st.one_of(
    BODIES.map(lambda body: counted(body.replace(b"\n", b" "))),
    BODIES.map(lambda body: esp(body.replace(b"\n", b"\n  "))),
    BODIES.map(lambda body: body.replace(b"\n", b" ") + b"\n"),
    st.binary(max_size=30).map(lambda line: b"I (1) a: " + line.replace(b"\n", b" ").replace(b"\0", b"?") + b"\r\n"),
)


@given(st.lists(RIGHT, max_size=8), st.lists(st.integers(0, 300), max_size=12))
def test_any_cut_of_a_stream_gives_the_same_messages(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    places = sorted({min(cut, len(stream)) for cut in cuts})
    whole, cut = Framer(), Framer()
    expected = [*whole.feed(stream), *whole.end()]
    pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    assert [*(frame for piece in pieces for frame in cut.feed(piece)), *cut.end()] == expected


@pytest.mark.parametrize("unit", [b"a", b"1 ", b"9 <1>", b"\n1", b"99999 <1>a\n", b"<1>a\n", b"\0", b"5 <1>ab"])
def test_the_work_for_a_stream_grows_as_its_length(unit: bytes) -> None:
    def seconds(size: int) -> float:
        stream = unit * (size // len(unit))
        best = float("inf")
        for _ in range(3):
            framer = Framer()
            begun = time.thread_time()
            for at in range(0, len(stream), 1000):
                framer.feed(stream[at : at + 1000])
            framer.end()
            best = min(best, time.thread_time() - begun)
        return best

    small, large = 1 << 14, 1 << 18
    assert seconds(large) < 64 * max(seconds(small), 5e-4)  # 256 if it grew by the square
