"""vhci-hcd without a kernel: what is written to `attach` and `detach` changes the `status` files of a tree.

It takes the socket as the kernel does, by its number, and frees the port when the server ends the connection.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from tests.builders.vhci_tree import PORTS_OF_A_HUB, row, vhci_tree, write_status
from usbip_capture.vhci.controller import Vhci


class SimulatedVhci(Vhci):
    """written: to `attach`. busy: ports that somebody else takes just before we write. addresses, enumerates:
    whether attached devices get a busid, and appear under it."""

    def __init__(self, sysfs: Path, controllers: int = 1) -> None:
        self.tree = vhci_tree(sysfs, controllers)
        super().__init__(str(sysfs), "linux")
        self.written: list[str] = []
        self.busy: dict[int, int] = {}
        self.refusal = 0
        self.addresses = self.enumerates = True
        self._local = sysfs / "bus/usb/devices"
        self.on_attached: Callable[[], None] = lambda: None
        self.options: list[tuple[int, int, int]] = []
        self._controllers = controllers
        self._sockets: dict[int, socket.socket] = {}
        self._rows: dict[int, str] = {}
        self._lock = threading.Lock()
        self._readers: list[threading.Thread] = []

    def use(self, number: int, devid: int = 0x10002, local: str = "3-1", status: int = 6) -> None:
        """A port that somebody else has attached to."""
        self._set(number, row(number, self._hub(number), status, 3, devid, local))

    def free(self, number: int) -> None:
        """The device of a port is gone."""
        self._set(number, "")

    def close(self) -> None:
        for sock in list(self._sockets.values()):
            sock.shutdown(socket.SHUT_RDWR)
        for reader in self._readers:
            reader.join()

    def _write(self, name: str, text: str) -> None:
        if name == "detach":
            self._detach(int(text))
            return
        self.written.append(text)
        number, fileno, devid, speed = map(int, text.split())
        if self.refusal:
            raise OSError(self.refusal, os.strerror(self.refusal))
        if number in self.busy:
            self.use(number)
            error = self.busy.pop(number)
            raise OSError(error, os.strerror(error))
        if number in self._rows or (speed == 5) != (self._hub(number) == "ss"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sock = self._sockets[number] = socket.socket(fileno=os.dup(fileno))
        self.options.append(
            (
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16), "little"),
            )
        )
        hub = self._hub(number)
        used = row(number, hub, 6, speed, devid, f"3-{number + 1}")
        if self.enumerates:
            (self._local / f"3-{number + 1}").mkdir(parents=True, exist_ok=True)
        self._set(number, used if self.addresses else row(number, hub, 5))
        reader = threading.Thread(target=self._drain, args=(number, sock))
        self._readers.append(reader)
        reader.start()
        self.on_attached()

    def _drain(self, number: int, sock: socket.socket) -> None:
        with sock:
            while sock.recv(4096):
                pass
            self._sockets.pop(number, None)
        self.free(number)

    def _detach(self, number: int) -> None:
        if number not in self._rows:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if number in self._sockets:
            self._sockets[number].shutdown(socket.SHUT_RDWR)
        else:
            self.free(number)

    def _hub(self, number: int) -> str:
        return "ss" if number // PORTS_OF_A_HUB % 2 else "hs"

    def _set(self, number: int, text: str) -> None:
        with self._lock:
            if text:
                self._rows[number] = text
            else:
                self._rows.pop(number, None)
            for controller in range(self._controllers):
                write_status(self.tree, controller, self._rows)
