"""A virtual machine with a real Linux kernel: QEMU's process, its start from a saved state, commands in it.

KVM is not used, so that every machine can run it and all runs are alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tests.kernel.rig.agent import Result, run_in_guest
from tests.kernel.rig.host import RigError, cache_to_itself, output
from tests.kernel.rig.image import AGENT_PORT, GADGET_PORT, READY, USBIPD_PORT, prepare
from tests.kernel.rig.qmp import Qmp

T = TypeVar("T")
M = TypeVar("M", bound="Machine")

#: This machine's loopback, as the guest sees it.
HOST_ADDRESS = "10.0.2.2"

#: In the guest's folder: what its audio devices have played.
PLAYED = "played.wav"

_QEMU = "qemu-system-x86_64"
_CMDLINE = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr audit=0 apparmor=0 cryptomgr.notests random.trust_cpu=on "
    "tsc=reliable initcall_blacklist=crypto_kdf108_init,init_kprobe_trace rcupdate.rcu_expedited=1"
)
_MEMORY_MIB = 384
_CPUS = 2
_START_TIMEOUT = 30.0
_COLD_BOOT_TIMEOUT = 180.0  # seconds; 2 to 15 are usual
_POLL_INTERVAL = 0.02
_FORWARDED = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)")


class Machine:
    """A running guest. Close it, or use it in a `with`.

    It ends with the thread that started it, so that none outlives a killed test run: start it from one that lasts.

    usbip_port, gadget_port, agent_port: where usbipd, its twin for gadgets, and the agent answer on 127.0.0.1.
    restored: it was started from the state that the first start saved.
    start_seconds: how long the start took.
    """

    def __init__(self, *, devices: tuple[str, ...] = (), usbip_port: int = 0, snapshot: bool = True) -> None:
        """Boot, or restore the saved state.

        devices: QEMU's arguments for what is in the machine from the start.
        usbip_port: 0 takes a free one.
        snapshot: False neither uses nor saves a state.
        """
        started = time.monotonic()
        self._cleanup = contextlib.ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="usbip-rig-"))
        self._cleanup.callback(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            with cache_to_itself():
                self._start(devices, usbip_port, snapshot)
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.monotonic() - started

    def run(self, command: str, stdin: bytes = b"", timeout: float = 60.0, *, check: bool = True) -> Result:
        """Run one line of shell in the guest. Raises RigError as `run_in_guest` does."""
        return run_in_guest(self.agent_port, command, stdin, timeout, check=check)

    def forward(self, guest_port: int) -> int:
        """Have a port of this machine's loopback lead to one of the guest; that port."""
        forward = f"hostfwd_add net0 tcp:127.0.0.1:0-:{guest_port}"
        if complaint := self.qmp("human-monitor-command", **{"command-line": forward}):
            raise RigError(f"QEMU does not forward port {guest_port}: {complaint}")
        return self._forwarded_ports()[guest_port]

    def console(self) -> str:
        path = self.folder / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_closed(self) -> None:
        """Block until the machine ends by itself."""
        self._process.wait()

    def close(self) -> None:
        self._cleanup.close()

    def __enter__(self: M) -> M:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, devices: tuple[str, ...], usbip_port: int, snapshot: bool) -> None:
        kernel, initramfs = self._prepared()
        machine = _machine_arguments(kernel, initramfs, devices)
        # A state belongs to the QEMU and to the machine that saved it.
        version = output(_QEMU, "--version").splitlines()[0]
        key = hashlib.sha256(repr((version, machine)).encode()).hexdigest()
        state = kernel.parent / f"state-{initramfs.stem}-{key[:12]}"
        self.restored = snapshot and state.exists()
        self.qmp = self._launch([*machine, *_host_arguments(self.folder, usbip_port)])
        ports = self._forwarded_ports()
        self.usbip_port, self.gadget_port, self.agent_port = ports[USBIPD_PORT], ports[GADGET_PORT], ports[AGENT_PORT]
        if self.restored:
            self.qmp("migrate-incoming", uri=f"exec:cat {shlex.quote(str(state))}")
            self.qmp.wait("RESUME")
        else:
            self.wait_until(lambda: READY.decode() in self.console(), _COLD_BOOT_TIMEOUT)
        self.wait_until(self._answers, _START_TIMEOUT)
        if snapshot and not self.restored:
            self._save(state)
        self.run(f"date -s @{time.time():.0f}")

    def _prepared(self) -> tuple[Path, Path]:
        """The kernel and the initramfs to boot."""
        return prepare()

    def _launch(self, arguments: list[str]) -> Qmp:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.folder / "qmp"))
            listener.listen()
            # QEMU connects, instead of making a socket that we would have to look for.
            command = [_QEMU, *arguments, "-qmp", f"unix:{self.folder}/qmp"]
            if self.restored:
                command += ["-incoming", "defer"]
            with (self.folder / "qemu.log").open("wb") as log:
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._cleanup.callback(self._kill)
            ended = os.pidfd_open(self._process.pid)
            try:
                ready, _, _ = select.select([listener.fileno(), ended], [], [], _START_TIMEOUT)
            finally:
                os.close(ended)
            if listener.fileno() not in ready:
                raise RigError(f"QEMU did not start: {(self.folder / 'qemu.log').read_text()}")
            connection, _ = listener.accept()
        self._cleanup.callback(connection.close)
        qmp = Qmp(connection)
        self._cleanup.callback(qmp.close)
        return qmp

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _forwarded_ports(self) -> dict[int, int]:
        """Ports of this machine's loopback by the guest's that they lead to."""
        listed = self.qmp("human-monitor-command", **{"command-line": "info usernet"})
        return {int(inside): int(outside) for outside, inside in _FORWARDED.findall(listed)}

    def _save(self, state: Path) -> None:
        scratch = state.with_suffix(f".{os.getpid()}")
        self.qmp("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        self.qmp("migrate", uri=f"exec:cat >{shlex.quote(str(scratch))}")
        self.qmp.wait("MIGRATION", lambda data: data["status"] in ("completed", "failed"))
        if self.qmp("query-migrate")["status"] != "completed":
            raise RigError("QEMU could not save the guest's state: is the disk full?")
        scratch.rename(state)
        images = [image.stem for image in state.parent.glob("*.cpio")]
        for old in state.parent.glob("state-*"):
            if not any(image in old.name for image in images):
                old.unlink()
        # The event comes a moment before QEMU itself is done.
        self.wait_until(lambda: self.qmp("query-status")["status"] == "postmigrate", _START_TIMEOUT)
        self.qmp("cont")

    def _answers(self) -> bool:
        try:
            self.run("true", timeout=10)
        except (OSError, RigError):
            return False
        return True

    def wait_until(self, condition: Callable[[], T], timeout: float) -> T:
        """Ask again until the answer is true. Raises RigError after `timeout` seconds, or when QEMU ends.

        A question is work for the guest, which has other things to do: it is asked at most a third of the time.
        """
        end = (asked := time.monotonic()) + timeout
        while not (value := condition()):
            if self._process.poll() is not None:
                raise RigError(f"QEMU ended: {(self.folder / 'qemu.log').read_text()}{self.console()[-2000:]}")
            if time.monotonic() > end:
                raise RigError(f"timed out; the guest's console: {self.console()[-2000:]}")
            time.sleep(max(_POLL_INTERVAL, 2 * (time.monotonic() - asked)))
            asked = time.monotonic()
        return value


def _machine_arguments(kernel: Path, initramfs: Path, devices: tuple[str, ...]) -> list[str]:
    """What the guest can see, which its saved state depends on."""
    return [
        "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(_CPUS), "-m", str(_MEMORY_MIB),
        "-nodefaults", "-vga", "none", "-display", "none", "-no-reboot",
        "-kernel", str(kernel), "-initrd", str(initramfs), "-append", _CMDLINE,
        *devices, "-device", "virtio-net-pci,netdev=net0,romfile=,addr=0x13",
    ]  # fmt: skip


def _host_arguments(folder: Path, usbip_port: int) -> list[str]:
    """How the guest is connected to this machine."""
    forwarded = ((usbip_port, USBIPD_PORT), (0, GADGET_PORT), (0, AGENT_PORT))
    forwards = ",".join(f"hostfwd=tcp:127.0.0.1:{outside}-:{inside}" for outside, inside in forwarded)
    return [
        "-audiodev", f"wav,id=snd,path={folder}/{PLAYED}", "-serial", f"file:{folder}/console.log",
        "-netdev", f"user,id=net0,{forwards}",
    ]  # fmt: skip
