"""What people write for a hook: who is called for what, or a sentence."""

from __future__ import annotations

import os

import pytest

from usbip_capture.errors import LocalProtocolError
from usbip_capture.server.events import IMPORTED, RELEASED
from usbip_capture.servers.hook_target import HOOK_EVENTS, MAX_HOOKS, HookTarget, place_of
from usbip_capture.servers.server_table import ServerTable, parse_server_table

posix = pytest.mark.skipif(os.name == "nt", reason="paths of Windows are others")


@posix
@pytest.mark.parametrize(
    ("text", "words", "argv"),
    [
        ("attach=/bin/x", ("attach",), ("/bin/x",)),
        ("attach = notify-send  USB", ("attach",), ("notify-send", "USB")),
        ("plug,unplug,plug=/x 'a b' \"c d\" e\\ f", ("plug", "unplug"), ("/x", "a b", "c d", "e f")),
        ("refused=/x a=b #c $HOME `d` ; | >", ("refused",), ("/x", "a=b", "#c", "$HOME", "`d`", ";", "|", ">")),
        ("attach=/bin/x https://h", ("attach",), ("/bin/x", "https://h")),
    ],
)
def test_programs(text: str, words: tuple[str, ...], argv: tuple[str, ...]) -> None:
    assert HookTarget.parse(text) == HookTarget(words, argv)


@pytest.mark.parametrize(
    ("text", "words", "url"),
    [
        ("detach=http://h/x?y=z&a=b", ("detach",), "http://h/x?y=z&a=b"),
        ("plug, capture-done = https://[2001:db8::1]:8443", ("plug", "capture-done"), "https://[2001:db8::1]:8443"),
    ],
)
def test_addresses(text: str, words: tuple[str, ...], url: str) -> None:
    assert HookTarget.parse(text) == HookTarget(words, url=url)


@posix
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not a hook: write one such as attach=/usr"),
        ("/bin/x", "is not a hook"),
        ("attach=", "is not a hook"),
        ("attach= ", "is not a hook"),
        ("=/bin/x", "'' is not an event for hooks: plug, unplug, attach, detach, refused, capture-done"),
        ("attached=/bin/x", "'attached' is not an event"),
        ("attach,=/bin/x", "'' is not an event"),
        ("attach=./x", "depends on where the server is started: write the whole path"),
        ("attach=/bin/x 'a", "is not a command: No closing quotation"),
        ("attach=/bin/x a\\", "is not a command: No escaped character"),
        ("attach=''", "is not a command"),
        ("attach=/bin/x \0", "is not a command"),
        ("attach=ftp://h/x", "is not an address of the web: write http://... or https://..."),
        ("attach=file:///etc/passwd", "is not an address of the web"),
        ("attach=http:///x", "is not an address of the web"),
        ("attach=http://h:x/", "is not an address: "),
        ("attach=http://h:99999/", "is not an address: "),
        ("attach=http://[::1", "is not an address: "),
        ("attach=http://h/a b", "characters that an address cannot have"),
        ("attach=http://h/\r\nX:y", "characters that an address cannot have"),
        ("attach=http://\u00e4.example/", "characters that an address cannot have"),
        ("attach=http://me:secret@h/", "a name or a password before its host, which is not sent$"),
    ],
)
def test_what_is_not(text: str, sentence: str) -> None:
    with pytest.raises(LocalProtocolError, match=sentence):
        HookTarget.parse(text)


def test_events_have_their_kinds() -> None:
    target = HookTarget.parse("attach,detach=https://example.com/")
    assert target.kinds == {IMPORTED, RELEASED}
    assert len(set(HOOK_EVENTS.values())) == len(HOOK_EVENTS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("attach=https://hooks.example.com:8443/secret?token=s", "attach=https://hooks.example.com:8443"),
        ("plug,unplug=notify --password secret", "plug,unplug=notify"),
    ],
)
def test_what_may_be_secret_is_not_shown(text: str, shown: str) -> None:
    assert str(HookTarget.parse(text)) == shown


def test_places() -> None:
    assert place_of("HTTP://Example.COM/x") == ("http", "example.com", 80)
    assert place_of("https://[2001:db8::1]/") == ("https", "2001:db8::1", 443)


def test_in_the_configuration() -> None:
    table = parse_server_table(b'[server]\nhooks = ["plug=notify", "attach=http://192.0.2.1/"]\n', "config.toml")
    assert table.hooks == ("plug=notify", "attach=http://192.0.2.1/")
    with pytest.raises(LocalProtocolError, match=f"hooks: at most {MAX_HOOKS} are called, not 33"):
        ServerTable(hooks=("plug=notify",) * 33)
    with pytest.raises(LocalProtocolError, match="hooks: 'start' is not an event"):
        ServerTable(hooks=("start=notify",))
