"""What is called when something happens at a server, as people write it: EVENT=PROGRAM or EVENT=URL."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

from usbip_capture.errors import LocalProtocolError
from usbip_capture.server.events import CAPTURE_ENDED, IMPORTED, PLUGGED, REFUSED, RELEASED, UNPLUGGED

#: What people call it, and the kind of event that it is.
HOOK_EVENTS = {
    "plug": PLUGGED,
    "unplug": UNPLUGGED,
    "attach": IMPORTED,
    "detach": RELEASED,
    "refused": REFUSED,
    "capture-done": CAPTURE_ENDED,
}
#: So many may be called, each by a thread of its own.
MAX_HOOKS = 32
_WORDS = {kind: word for word, kind in HOOK_EVENTS.items()}
#: Of the web, and their usual ports.
PORTS = {"http": 80, "https": 443}
_EXAMPLE = "write one such as attach=/usr/local/bin/notify or attach,detach=https://example.com/usb"


@dataclass(slots=True, frozen=True)
class HookTarget:
    """words: the events it is called for; argv: a program and its arguments, empty if it is a URL."""

    words: tuple[str, ...]
    argv: tuple[str, ...] = ()
    url: str = ""

    @classmethod
    def parse(cls, text: str) -> HookTarget:
        """`EVENT[,EVENT]=PROGRAM [ARGUMENT]...`, quoted as in a shell that expands nothing, or `=URL`.

        Raises LocalProtocolError.
        """
        names, equals, target = text.partition("=")
        words = tuple(dict.fromkeys(word.strip() for word in names.split(",")))
        target = target.strip()
        if not equals or not target:
            raise LocalProtocolError(f"{text!r} is not a hook: {_EXAMPLE}")
        for word in words:
            if word not in HOOK_EVENTS:
                raise LocalProtocolError(f"{word!r} is not an event for hooks: {', '.join(HOOK_EVENTS)}")
        if "://" in target.partition(" ")[0]:
            return cls(words, url=_checked(target))
        return cls(words, argv=_split(target))

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of event that it is called for."""
        return frozenset(HOOK_EVENTS[word] for word in self.words)

    def __str__(self) -> str:
        """For the log and events: no arguments, and of a URL the server only; the rest may be secret."""
        parts = urlsplit(self.url)
        target = self.argv[0] if self.argv else f"{parts.scheme}://{parts.netloc}"
        return f"{','.join(self.words)}={target}"


def word_of(kind: str) -> str:
    """What people call the event of this kind."""
    return _WORDS[kind]


def place_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address. Raises LocalProtocolError."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise LocalProtocolError(f"{url!r} is not an address: {error}") from None
    if parts.scheme not in PORTS or not host or not host.strip("."):
        raise LocalProtocolError(f"{url!r} is not an address of the web: write http://... or https://...")
    return parts.scheme, host, PORTS[parts.scheme] if port is None else port


def _checked(url: str) -> str:
    """Raises LocalProtocolError."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise LocalProtocolError(f"{url!r} has characters that an address cannot have: write them as %XX")
    place_of(url)
    if "@" in urlsplit(url).netloc:
        raise LocalProtocolError("a hook's address has a name or a password before its host, which is not sent")
    return url


def _split(text: str) -> tuple[str, ...]:
    """A program's arguments. Raises LocalProtocolError."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    if os.name == "nt":
        lexer.escape = ""  # a path has backslashes
    try:
        argv = tuple(lexer)
    except ValueError as error:
        raise LocalProtocolError(f"{text!r} is not a command: {error}: close what is quoted") from None
    if not argv or not argv[0] or "\0" in text:
        raise LocalProtocolError(f"{text!r} is not a command: {_EXAMPLE}")
    if os.path.dirname(argv[0]) and not os.path.isabs(argv[0]):
        raise LocalProtocolError(f"{argv[0]!r} depends on where the server is started: write the whole path")
    return argv
