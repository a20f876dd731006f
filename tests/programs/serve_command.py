"""The command `usbip-capture serve` as it runs, on a machine whose libusb is simulated."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.programs.simulated_machine import BUSID, Machine, environment
from usbip_capture.device import Device
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.urb import Urb

READ = Urb.control(get_descriptor(1, 0, 0, 18).pack())
CODE = "from usbip_capture.cli.main import main; import sys; sys.exit(main())"


class Serving:
    """The command, on a machine whose libusb is simulated; said: on standard error so far."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.machine = Machine(folder)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CODE, "serve", *arguments],
            cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.said += line
                self._changed.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Until it has said something that matches."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            match = re.search(pattern, self.said)
            found.extend([match] if match else [])
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(look, 30), self.said
        return found[0]

    def server(self) -> ServerAddress:
        """Once it listens."""
        return ServerAddress("127.0.0.1", int(self.wait_for(r"serving at 127\.0\.0\.1:(\d+)")[1]), 20.0)

    def attach(self, busid: str = BUSID) -> Device:
        return self.server().import_device(Selector(busid))

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        self._reader.join(30)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self._reader.join(30)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.machine.close()


@contextmanager
def commands_in(folder: Path) -> Iterator[Callable[..., Serving]]:
    """What starts one with these arguments; all of them have ended after the block."""
    made: list[Serving] = []

    def start(*arguments: str) -> Serving:
        made.append(Serving(folder, *arguments))
        return made[-1]

    try:
        yield start
    finally:
        for serving in made:
            serving.close()


def listed(server: ServerAddress) -> list[str]:
    return [str(info) for info in server.devices()]


def write_configuration(folder: Path, text: str) -> None:
    path = folder / "config/usbip-capture/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
