"""The toolbar while a capture runs: marks, the device's state, counters, the log window.

Whatever its other end does, the capture goes on: nothing here waits for it, and a message that the pipe has no room
for is lost.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Protocol

from usbip_capture.extcap import controls
from usbip_capture.extcap.clients import ClientList
from usbip_capture.extcap.controls import (
    CLIENTS,
    DEVICE,
    DISABLE,
    DROP,
    LISTEN,
    LOG,
    MARK,
    RESET,
    SET,
    STATUSBAR,
    Message,
    Parser,
)
from usbip_capture.system.shown import lines

log = logging.getLogger(__name__)

_TICK = 1.0
_OPEN_RETRY = 0.1
_READ_SIZE = 4096


class Counts(Protocol):
    """What the status line shows of a capture."""

    @property
    def urbs(self) -> int:
        """URBs that came back."""

    @property
    def bytes(self) -> int:
        """Bytes that they moved."""

    @property
    def dropped(self) -> int:
        """Packets that found no room."""

    @property
    def filtered(self) -> int:
        """Packets that the filter did not let pass."""


class Capture(Protocol):
    """What the toolbar works on."""

    @property
    def writer(self) -> Counts | None:
        """The capture, None before it has begun."""

    def comment(self, text: str) -> None:
        """Comment on this moment of the capture."""

    def listen_to(self, chosen: frozenset[int] | None) -> None:
        """Read these endpoints from now on."""

    def drop_client(self, number: int) -> None:
        """Break off a client of the relay or the server."""

    def reset_device(self, number: int) -> None:
        """Reset the device of a client of the server."""

    def quit(self) -> None:
        """End the capture."""


class Toolbar:
    """One toolbar. `control_in`: a descriptor to read from, None where there is none; `control_out`: a path."""

    def __init__(self, control_in: int | None, control_out: str | None, capture: Capture) -> None:
        self._in = control_in
        self._out_path = control_out
        self._out: int | None = None
        self._capture = capture
        self._lock = threading.Lock()
        self._marks = 0
        self._states: dict[object, str] = {}
        self._shown = ""
        self._over = False
        self._listening = "all"
        self.clients = ClientList(self.send)

    def start(self) -> None:
        """Begin, on threads of its own; without pipes there is nothing to do."""
        if self._in is not None:
            threading.Thread(target=self._listen_to_it, name="usbip-toolbar-in", daemon=True).start()
        if self._out_path:
            threading.Thread(target=self._talk_to_it, name="usbip-toolbar-out", daemon=True).start()

    def state(self, session: object, text: str) -> None:
        """What a session is doing now; those of several are shown side by side."""
        self._states[session] = text
        self._show_state()

    def ended(self) -> None:
        """The capture is over: nothing that it showed is true any more. Waits for nothing."""
        with self._lock:
            self._over = True
        self._show_state()
        self.clients.update({}, "")
        self.clients.show()

    def log_handler(self) -> logging.Handler:
        """A handler that writes into the log window."""
        return _LogHandler(self)

    def show_line(self, text: str) -> None:
        """Write a line of the device's log into the log window."""
        self.send(LOG, controls.ADD, text)

    def send(self, control: int, command: int, text: str = "") -> bool:
        """Send a message unless nobody takes it; whether it went out."""
        shown = "\0".join(map(lines, text.split("\0")))  # a value, and what is displayed for it
        with self._lock:
            if self._out is None:
                return False
            try:
                os.write(self._out, controls.pack(control, command, shown))
            except BlockingIOError:
                return False
            except OSError:
                os.close(self._out)
                self._out = self._out_path = None
                return False
        return True

    # -- its threads

    def _talk_to_it(self) -> None:
        while self._out is not None or self._out_path:
            self._tick()
            time.sleep(_TICK if self._out is not None else _OPEN_RETRY)

    def _listen_to_it(self) -> None:
        parser = Parser()
        while data := self._read():
            for message in parser.feed(data):
                try:
                    self._handle(message)
                except Exception:
                    log.exception("the toolbar's message failed")

    def _read(self) -> bytes:
        """What comes next; nothing when the other end is gone."""
        if self._in is None:
            return b""
        while True:
            try:
                if os.name != "nt":  # there it blocks by itself
                    poll = select.poll()
                    poll.register(self._in, select.POLLIN)
                    poll.poll()
                return os.read(self._in, _READ_SIZE)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    def _tick(self) -> None:
        self._open()
        self._show_state()
        if not self._over:
            self.clients.show()
        writer = self._capture.writer
        if self.clients.hint:
            self.send(0, STATUSBAR, self.clients.hint)
        elif writer is not None:
            text = f"USB/IP: {writer.urbs:,} URBs, {_size(writer.bytes)}, {writer.dropped:,} packets dropped"
            if writer.filtered:
                text += f", {writer.filtered:,} filtered"
            self.send(0, STATUSBAR, text)

    def _open(self) -> None:
        if self._out is not None or not self._out_path:
            return
        try:
            out = os.open(self._out_path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno != errno.ENXIO:  # that one means: nobody reads it yet
                self._out_path = None
            return
        self._out = out
        self.send(DEVICE, DISABLE)  # to look at, not to be edited
        self.send(CLIENTS, DISABLE)  # until there is a relay
        self.send(DROP, DISABLE)
        self.send(RESET, DISABLE)

    def _show_state(self) -> None:
        text = "" if self._over else "; ".join(self._states.values())
        if text != self._shown and self.send(DEVICE, SET, text):
            self._shown = text

    def _handle(self, message: Message) -> None:
        if message.quit:
            self._capture.quit()
        elif message.command == SET and message.control == MARK:
            self._mark()
        elif message.command == SET and message.control == LISTEN:
            self._listen(message.payload.decode("utf-8", "replace"))
        elif message.command == SET and message.control == CLIENTS:
            self.clients.choose(message.payload.decode("utf-8", "replace"))
        elif message.command == SET and message.control == DROP:
            self._with_client(self._capture.drop_client, "drop it")
        elif message.command == SET and message.control == RESET:
            self._with_client(self._capture.reset_device, "reset its device")

    def _mark(self) -> None:
        self._marks += 1
        now = time.time()
        clock = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03d}"
        self._capture.comment(f"usbip-capture: mark {self._marks} at {clock}")
        log.info("mark %d", self._marks)

    def _listen(self, text: str) -> None:
        try:
            chosen = controls.parse_endpoints(text)
        except ValueError:
            self.send(LISTEN, SET, self._listening)
            self.send(0, STATUSBAR, f"{text!r} does not name IN endpoints: give 0x81 0x83, all or none")
            return
        self._listening = text.strip() or "all"
        log.info("listening to %s", self._listening)
        self._capture.listen_to(chosen)

    def _with_client(self, action: Callable[[int], None], what: str) -> None:
        number = self.clients.chosen()
        if number is None:
            self.send(0, STATUSBAR, f"choose a client first, then {what}")
        else:
            action(number)


class _LogHandler(logging.Handler):
    def __init__(self, toolbar: Toolbar) -> None:
        super().__init__()
        self._toolbar = toolbar

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._toolbar.send(LOG, controls.ADD, self.format(record) + "\n")
        except Exception:  # noqa: BLE001, S110  what cannot be logged must not end a capture
            pass


def _size(count: int) -> str:
    size, unit = float(count), "bytes"
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{count:,} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
