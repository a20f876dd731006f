"""The toolbar's messages, in any portions and with any garbage between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.extcap.controls import MARK, MAX_PAYLOAD, SET, Parser, pack, parse_endpoints

MESSAGES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 255), st.text(max_size=40).filter(str.isprintable)), max_size=6
)


@given(MESSAGES, st.data())
def test_messages_survive_any_cut(messages: list[tuple[int, int, str]], data: st.DataObject) -> None:
    stream = b"".join(pack(*message) for message in messages)
    parser, found = Parser(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += parser.feed(stream[:size])
        stream = stream[size:]
    assert [(m.control, m.command, m.payload.decode()) for m in found] == messages


@given(st.binary(max_size=60))
def test_garbage_is_passed_over(garbage: bytes) -> None:
    Parser().feed(garbage)


def test_a_message_after_garbage() -> None:
    (message,) = Parser().feed(b"\x00garbage" + pack(MARK, SET))
    assert (message.control, message.command, message.payload, message.quit) == (MARK, SET, b"", False)


def test_quit_of_newer_versions() -> None:
    (message,) = Parser().feed(b"Q\0\0\0")
    assert message.quit


def test_a_long_text_is_cut_between_characters() -> None:
    (message,) = Parser().feed(pack(0, 6, "\u00fc" * 3000))
    assert message.payload.decode() == "\u00fc" * (MAX_PAYLOAD // 2)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("", None), ("all", None), (" ALL ", None), ("none", set()), ("0x81 0x83", {0x81, 0x83}), ("81,8f", {0x81, 0x8F})],
)
def test_endpoints(text: str, chosen: object) -> None:
    assert parse_endpoints(text) == chosen


@pytest.mark.parametrize("text", ["0x01", "0x80", "0x90", "some", "0x81 and 0x82", "-1"])
def test_what_is_no_in_endpoint(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_endpoints(text)
