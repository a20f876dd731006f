"""Wireshark's interface toolbar: its controls, and the messages to and from it.

A message is `T`, a length of 24 bits in network order, the control's number, a command, and a payload. Wireshark 5
has another one, `Q` and a length: quit.

Ref: Wireshark 4.0, doc/extcap.adoc (toolbar controls); ui/qt/interface_toolbar.cpp; wsdg_capture.adoc of 5.0
"""

from __future__ import annotations

from usbip_capture.extcap.grammar import sentence

# Numbers of our controls
LOG, HELP, MARK, DEVICE, LISTEN, CLIENTS, DROP, RESET = range(8)
#: What the list of clients holds while there is none, and while none is chosen.
NO_CLIENT = "0"

# Commands
INITIALIZED, SET, ADD, REMOVE, ENABLE, DISABLE, STATUSBAR, INFORMATION, WARNING, ERROR = range(10)

_TOOLBAR = ord("T")
_QUIT = ord("Q")
_HEAD = 4
#: Longer than any message that makes sense.
_MAX_LENGTH = 64 << 10
#: A message of ours reaches the pipe whole or not at all.
MAX_PAYLOAD = 2000


class Message:
    """What Wireshark sent: a command for a control. quit: the capture is to end, and nothing else counts."""

    __slots__ = ("command", "control", "payload", "quit")

    def __init__(self, control: int, command: int, payload: bytes, quit: bool = False) -> None:
        self.control = control
        self.command = command
        self.payload = payload
        self.quit = quit


def sentences() -> list[str]:
    """The toolbar, for the list of interfaces."""
    return [
        sentence("control", number=LOG, type="button", role="logger", display="Log",
                 tooltip="Show what the capture does"),
        sentence("control", number=HELP, type="button", role="help", display="Help",
                 tooltip="Options, filters, and what to do when something does not work"),
        sentence("control", number=MARK, type="button", display="Mark",
                 tooltip="Put a comment with the time on the next packet"),
        sentence("control", number=DEVICE, type="string", display="Device",
                 tooltip="What the device is doing", placeholder="not capturing"),
        sentence("control", number=LISTEN, type="string", display="Listen to",
                 tooltip="IN endpoints that are read, such as 0x81 0x83; all or none",
                 placeholder="all", validation="^\\s*(all|none|(0x)?[89a-fA-F][0-9a-fA-F]"
                 "([\\s,]+(0x)?[89a-fA-F][0-9a-fA-F])*)?\\s*$"),
        sentence("control", number=CLIENTS, type="selector", display="Client",
                 tooltip="Clients of the relay or the server, and the devices that they have"),
        sentence("value", control=CLIENTS, value=NO_CLIENT, display="(no client)", default="true"),
        sentence("control", number=DROP, type="button", display="Drop client",
                 tooltip="Break off the connection of this client to the device"),
        sentence("control", number=RESET, type="button", display="Reset",
                 tooltip="Reset the device that this client of the server has"),
    ]  # fmt: skip


def pack(control: int, command: int, text: str = "") -> bytes:
    """A message to the toolbar; a text that is too long is cut."""
    payload = text.encode("utf-8", "replace")[:MAX_PAYLOAD].decode("utf-8", "ignore").encode()
    return b"T" + (len(payload) + 2).to_bytes(3, "big") + bytes([control, command]) + payload


class Parser:
    """Bytes of the toolbar's pipe to messages; what is not one is skipped."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes."""
        self._data += data
        messages = []
        while len(self._data) >= _HEAD:
            kind, length = self._data[0], int.from_bytes(self._data[1:_HEAD], "big")
            known = (kind == _TOOLBAR and 2 <= length <= _MAX_LENGTH) or (kind == _QUIT and length <= _MAX_LENGTH)
            if not known:
                self._data = self._data[1:]
                continue
            if len(self._data) < _HEAD + length:
                break
            body, self._data = self._data[_HEAD : _HEAD + length], self._data[_HEAD + length :]
            if kind == _QUIT:
                messages.append(Message(0, 0, body, quit=True))
            else:
                messages.append(Message(body[0], body[1], body[2:]))
        return messages


def parse_endpoints(text: str) -> frozenset[int] | None:
    """Endpoints as typed: `0x81 0x83`, `none`; None is all. Raises ValueError."""
    text = text.strip().lower()
    if text in ("", "all"):
        return None
    if text == "none":
        return frozenset()
    found = frozenset(int(part, 16) for part in text.replace(",", " ").split())
    if not all(0x81 <= address <= 0x8F for address in found):
        raise ValueError(text)
    return found
