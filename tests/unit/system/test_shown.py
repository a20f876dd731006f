from __future__ import annotations

import shlex

from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.system.shown import lines, one_line, shell_word

HOSTILE = "1-1\x1b[31m\n\r\x07\u202e\u061c\x9b;touch /tmp/x"


@given(st.text(alphabet=st.characters()))
def test_one_line_is_printable_and_can_be_encoded(text: str) -> None:
    assert one_line(text).isprintable()
    one_line(text).encode()
    assert one_line(one_line(text)) == one_line(text)


@given(st.text())
def test_a_shell_reads_one_word(text: str) -> None:
    assert shlex.split(shell_word(text)) == [one_line(text)]
    assert not shell_word(text).startswith("-")


def test_texts_of_a_hostile_server() -> None:
    assert one_line(HOSTILE) == r"1-1\x1b[31m\n\r\x07\u202e\u061c\x9b;touch /tmp/x"
    assert one_line("Prüfgerät 試験") == "Prüfgerät 試験"
    assert one_line("\udcff") == r"\udcff"
    assert shell_word("1-1.2") == "1-1.2"
    assert shell_word("1-1;touch /tmp/x") == "'1-1;touch /tmp/x'"


def test_lines_keep_their_line_feeds() -> None:
    assert lines("one\r\ntwo\x1b\n") == "one\\r\ntwo\\x1b\n"
