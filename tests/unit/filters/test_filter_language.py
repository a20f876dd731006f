"""The language of capture filters: what it means, what is unknown yet, and where a mistake is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.filters.language import Facts, FilterError, parse

BULK_IN: dict[str, int | str | None] = {
    "device": "1-1.2", "vid": 0x303A, "pid": 0x4004, "ep": 0x81, "type": 3, "inward": 1, "interface_class": 0x0A,
}  # fmt: skip

TRUE = [
    "bulk", "BULK", "in", "not control", "!control", "bulk and ep == 0x81", "ep==129", "endpoint eq 0x81",
    "type == bulk", "type != iso", "dir == in", "direction ne out", "class == cdc_data", "class == 10", "class == 0x0a",
    "device == 1-1.2", "device == 303a:4004", "device == 303A:4004", "device != 1-1", "vid == 0x303a", "pid > 0x4000",
    "ep in (0x81, 0x82)", "ep in {0x81}", "device in (1-1, 303a:4004)", "type in (bulk, control)",
    "out or in", "out || in", "(out or in) and bulk", "not (out and bulk)", "not out and bulk", "out or in and bulk",
    "in and not out", "busid == '1-1.2'", 'device == "1-1.2"', "requested == 512",
    "requested >= 512 and requested <= 512", "not descriptors",
]  # fmt: skip
FALSE = ["control", "out", "ep == 0x82", "bulk and out", "device == 1-1", "device == 303a:4005", "class == hid",
         "not in", "ep in (1, 2)", "descriptors", "requested < 512"]  # fmt: skip
#: For the status and length of the completion: what is decided before it is there, and with -32 and 5.
LATE = [
    ("status == 0", None, False), ("status != 0", None, True), ("status == stall", None, True),
    ("status == EPIPE", None, True), ("status == -EPIPE", None, True), ("status == -32", None, True),
    ("status < 0", None, True), ("error", None, True), ("not error", None, False), ("length > 4", None, True),
    ("len == 5", None, True), ("out and error", False, False), ("in or error", True, True),
    ("error and out", False, False),
    ("error or in", True, True), ("in and length == 0", None, False), ("length in (4, 5)", None, True),
]  # fmt: skip
WRONG = [
    ("bulk and", 9, "missing"), ("bulk and and", 10, "before 'and'"), ("bulk && && in", 9, "before '&&'"),
    ("or bulk", 1, "before 'or'"), ("ep == and", 7, "'and' is not a value"),
    ("(bulk) not in", 8, "'not' is unexpected"),
    ("foo", 1, "'foo'"), ("ep = 1", 4, "=="), ("ep", 3, "comparison"),
    ("ep ==", 6, "value"),
    ("type < bulk", 6, "=="), ("(bulk", 6, "bracket at 1"), ("ep == zz", 7, "'zz'"), ("bulk in", 6, "unexpected"),
    ("ep in 5", 7, "list"), ("ep in (5", 9, "bracket"), ("device == xx:yy", 11, "'xx:yy'"), ("bulk & in", 6, "and"),
    ("bulk | in", 6, "or"), ("'bulk", 1, "not closed"), ("type == 3", 9, "'3'"), ("status == broken", 11, "'broken'"),
    ("bulk bulk", 6, "unexpected"), (")", 1, "missing before ')'"),
    ("$", 1, "nothing"), ("!" * 60 + "in", 51, "nested"),
    ("ep == 0x" + "1" * 40, 7, "0x"), ("ep == \u0663", 7, "value of ep"),
]  # fmt: skip


def found(text: str, **more: int) -> bool | None:
    parsed = parse(text)
    assert parsed is not None
    return parsed.test(Facts(**{**BULK_IN, "requested": 512, **more}))


@pytest.mark.parametrize("text", TRUE)
def test_true(text: str) -> None:
    assert found(text) is True


@pytest.mark.parametrize("text", FALSE)
def test_false(text: str) -> None:
    assert found(text) is False


@pytest.mark.parametrize(("text", "early", "late"), LATE)
def test_what_only_the_completion_shows(text: str, early: bool | None, late: bool) -> None:
    parsed = parse(text)
    assert parsed is not None
    assert parsed.late
    assert found(text) is early
    assert found(text, status=-32, length=5) is late


@pytest.mark.parametrize(("text", "position", "words"), WRONG)
def test_mistakes_come_with_their_position(text: str, position: int, words: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert caught.value.position == position - 1
    assert str(caught.value).startswith(f"at {position}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "  ", "\t\n"])
def test_nothing_lets_everything_pass(text: str) -> None:
    assert parse(text) is None


def test_unlinked_is_no_error() -> None:
    assert [found("error", status=status) for status in (0, -2, -104, -32, -108)] == [False] * 3 + [True] * 2


WORDS = ["bulk", "in", "and", "or", "not", "(", ")", "ep", "==", "0x81", "status", "<", "5", "{", ",", "'", "="]


@given(st.lists(st.sampled_from(WORDS), max_size=12) | st.text(max_size=20).map(lambda text: [text]))
def test_any_text_is_a_filter_or_a_mistake_in_it(words: list[str]) -> None:
    text = " ".join(words)
    try:
        parsed = parse(text)
    except FilterError as error:
        position = error.position
    else:
        position = 0
        assert parsed is None or parsed.test(Facts()) in (True, False, None)
    assert 0 <= position <= len(text)
