"""Two sessions with a disk: what differs is what was asked, not the tags, nor all that follows."""

from __future__ import annotations

from tests.builders.exchanges import Conversation, block
from usbip_capture.comparing.differences import compare
from usbip_capture.comparing.text import lines


def session(*blocks: int, tag: int = 0) -> Conversation:
    made = Conversation()
    made.tag = tag
    for number in blocks:
        made.read(number, block(number))
    return made


def differences(first: Conversation, second: Conversation) -> list[str]:
    ours, theirs = first.recording(), second.recording()
    return list(lines(compare(ours.exchanges, theirs.exchanges, (ours.known, theirs.known))))


def test_tags_are_not_compared() -> None:
    assert differences(session(1, 2, 3), session(1, 2, 3, tag=40)) == []


def test_one_more_command_is_one_more_command() -> None:
    found = differences(session(1, 2, 3, 4, 5), session(1, 2, 9, 3, 4, 5))
    assert len(found) == 3
    assert all(line.endswith("only in the second") for line in found)


def test_another_content_is_one_difference() -> None:
    second = session(1, 2, 3)
    second.exchanges[4].data = block(7)
    (found,) = differences(session(1, 2, 3), second)
    assert "byte 11: from 8 on" in found
