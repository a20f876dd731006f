"""A guest that runs programs in Python: on its real libusb, usbfs and kernel drivers."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.rig.agent import Result, run_in_guest
from tests.kernel.rig.guest import Guest
from tests.kernel.rig.host import RigError
from tests.kernel.rig.python_image import SITE, ZYGOTE_PORT, debian_python, gathered, prepare_python

_IMPORT_TIMEOUT = 60.0


class PythonGuest(Guest):
    """A `Guest` with Python 3.11, libusb and udevd. No kernel driver is loaded for a device until `modprobe`."""

    def __init__(self, *, usbip_port: int = 0, snapshot: bool = True) -> None:
        super().__init__(usbip_port=usbip_port, snapshot=snapshot)
        self._zygote_ports = itertools.count(ZYGOTE_PORT + 1)
        self._python_port = self.forward(ZYGOTE_PORT)

    def add(self, *sources: Path, imported: Sequence[str] = ()) -> None:
        """Put modules and packages (folders) where the guest's Python finds them, compiled.

        imported: modules that all programs from now on find imported, since imports take seconds in emulation.
        """
        archive = io.BytesIO()
        with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=archive, mode="w") as tar:
            gathered(debian_python(), list(sources), Path(folder), only_compiled=True)
            tar.add(folder, ".")
        self.run(f"tar -x -o -C /{SITE}", archive.getvalue())
        if imported:
            port = next(self._zygote_ports)
            self.start("/bin/zygote.py", str(port), *imported, log=f"/tmp/zygote{port}")
            self._poll(f"netstat -ltn | grep -q :{port}", _IMPORT_TIMEOUT)
            self._python_port = self.forward(port)

    def python(
        self, code: str, *arguments: str, stdin: bytes = b"", timeout: float = 60.0, check: bool = True
    ) -> Result:
        """Run code, with `arguments` in sys.argv[1:], to its end. Raises RigError as `run` does."""
        command = json.dumps(["", "-c", code, *arguments])
        return run_in_guest(self._python_port, command, stdin, timeout, check=check)

    def start(self, *arguments: str, log: str = "/tmp/log") -> Program:
        """Start a program in the background: -c, -m or a file of the guest first."""
        pid = run_in_guest(self._python_port, json.dumps([log, *arguments])).text
        return Program(self, int(pid), log)

    def _prepared(self) -> tuple[Path, Path]:
        return prepare_python()


@dataclass(slots=True)
class Program:
    """One that runs in the background of a guest, and the file there that has what it prints."""

    guest: PythonGuest
    pid: int
    log: str

    def printed(self) -> str:
        return self.guest.run(f"cat {self.log}").text

    def wait_printed(self, text: str, timeout: float = 30.0) -> str:
        """Until it has printed `text`; all that it has printed then. Raises RigError, also when it has ended."""
        try:
            self.guest.wait_until(lambda: text in self.printed() or not self.alive, timeout)
        except RigError as error:
            raise RigError(f"no {text!r} in what was printed: {self.printed()[-2000:]}") from error
        printed = self.printed()
        if text not in printed:
            raise RigError(f"it ended without {text!r}: {printed[-2000:]}")
        return printed

    @property
    def alive(self) -> bool:
        return not self.guest.run(f"kill -0 {self.pid} 2>/dev/null", check=False).returncode

    def signal(self, name: str) -> None:
        """INT, TERM, KILL, STOP, ... ."""
        self.guest.run(f"kill -{name} {self.pid}", check=False)

    def wait_ended(self, timeout: float = 30.0) -> None:
        self.guest.wait_until(lambda: not self.alive, timeout)
