"""Compiles the hot path with mypyc, from the same source, while a wheel is built; where it does not, the wheel is pure.

A wheel is compiled where that is known to work: CPython with its headers, a C compiler, a platform that mypy has
wheels for. Otherwise it is pure without a word, as it is with `USBIP_CAPTURE_COMPILED=0`, and in editable installations
unless `USBIP_CAPTURE_COMPILED=1` asks for it. So it is with a plain `pip install`, too: who has no compiler notices
nothing, who has one waits a minute or two, once, for what is faster ever after. Where compiling fails, or takes longer
than `SECONDS`, one line says so and the wheel is pure; who has asked for it has it, however long it takes, or an error.

    python hatch_build.py FOLDER        compile into FOLDER, in a process of its own: so it can be broken off
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
SWITCH = "USBIP_CAPTURE_COMPILED"
#: What it may take, fetching mypy apart: about a minute of processor time is usual, of all processors together.
SECONDS = 300
#: Bytes of memory below which compiling would have the machine swap.
MEMORY = 2 << 30
#: Compilers at a time, at most: each takes up to 150 MB.
AT_ONCE = 8
#: mypyc's output depends on its version; both are asked for only where they are used.
REQUIREMENTS = ["mypy==2.4.1", "setuptools>=77"]
# mypy's own dependencies have wheels for these; elsewhere pip would need a Rust compiler, and the installation fail.
PLATFORMS = {
    "linux": ("x86_64", "aarch64"),
    "darwin": ("x86_64", "arm64"),
    "win32": ("AMD64",),
}
VERSIONS = ((3, 10), (3, 14))
#: What a URB passes through between a program and the wire, a capture, a server's client or the relay, what a log's
#: message does, and a packet that is converted or counted. Calls between compiled and other modules cost more than
#: those of either kind: chains, not single files.
MODULES = """
    usb/urb usb/setup usb/endpoints
    wire/structs wire/replies wire/client wire/server
    wire/observed wire/following wire/recognition wire/observer wire/hindsight
    records/usbmon
    device tap
    net/transport
    capture/channel capture/event_queue capture/remarks
    devices/remote
    host/handle host/transfers host/opened
    server/session server/replies server/figures
    devices/libusb/slots devices/libusb/flights devices/libusb/in_flight devices/libusb/budget devices/libusb/checks
    devices/libusb/events devices/libusb/handle devices/libusb/device
    relay/forwarding relay/backlog relay/observation relay/captures relay/relay
    syslog/message syslog/framing collector/sender collector/delivery capture/log_channel capture/unlinks
    recordings/packets recordings/urb_events
    convert/link convert/reassembly convert/sessions convert/hindsight convert/runs convert/output convert/converter
    usb/histogram report/timeline report/statistics report/runs
"""


class CompilingHook(BuildHookInterface[Any]):
    """hatchling's custom hook, for wheels."""

    def dependencies(self) -> list[str]:
        """What the environment of the build needs besides hatchling."""
        return REQUIREMENTS if self._is_wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put the compiled modules beside their source, and the platform into the wheel's name."""
        if not self._is_wanted(version):
            return
        folder = Path(tempfile.mkdtemp(prefix="usbip-capture-build-"))
        self._folder = folder
        failure = compile_into(folder)
        if failure and os.environ.get(SWITCH) == "1":
            self.app.abort(f"usbip_capture cannot be compiled: {failure}: without {SWITCH}=1 it is pure Python")
        if failure:
            self.app.display_warning(f"usbip_capture stays pure Python: {failure}")
            return
        for file in (folder / "lib").rglob("*.*"):
            build_data["force_include"][str(file)] = file.relative_to(folder / "lib").as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what the wheel has now."""
        folder = getattr(self, "_folder", None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _is_wanted(self, version: str = "standard") -> bool:
        if self.target_name != "wheel":
            return False
        return is_wanted(editable=version == "editable")


def is_wanted(*, editable: bool = False) -> bool:
    """Whether to compile: what the switch says, where it can be done."""
    asked = os.environ.get(SWITCH, "")
    if asked == "0" or (editable and asked != "1"):
        return False
    return can_compile()


def can_compile() -> bool:
    """Whether this machine has what compiling takes, or gets it from PyPI as wheels."""
    if platform.python_implementation() != "CPython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return False
    if not VERSIONS[0] <= sys.version_info[:2] <= VERSIONS[1]:
        return False
    if platform.machine() not in PLATFORMS.get(sys.platform, ()):
        return False
    if sys.platform == "linux" and platform.libc_ver()[0] != "glibc":
        return False
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return False
    return has_memory() and has_compiler()


def has_memory() -> bool:
    """Whether the compiler finds room; True where that cannot be asked."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >= MEMORY
    except (AttributeError, ValueError, OSError):
        return True


def has_compiler() -> bool:
    """Whether setuptools will find a C compiler."""
    if sys.platform == "win32":  # it looks for Visual Studio by itself, in the registry
        where = Path(os.environ.get("PROGRAMFILES(X86)", ""), "Microsoft Visual Studio", "Installer", "vswhere.exe")
        return where.is_file()
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    return bool(command) and shutil.which(command[0]) is not None


def compile_into(folder: Path) -> str:
    """Compile in another process, for at most `SECONDS` unless it was asked for; why it failed, or nothing."""
    limit = None if os.environ.get(SWITCH) == "1" else SECONDS
    with open(folder / "log", "w+b") as log:
        command = [sys.executable, str(ROOT / "hatch_build.py"), str(folder)]
        with subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True) as process:
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                return f"compiling takes longer than {SECONDS} s here"
            finally:
                end(process)
        if not code:
            return ""
        log.seek(0)
        lines = log.read().decode("utf-8", "replace").split("\n")
        reason = next((line for line in lines if "error" in line.lower()), "")
        return f"compiling failed ({reason.strip() or f'exit code {code}'})"


def end(process: subprocess.Popen[bytes]) -> None:
    """With the compiler that it has started, if it has not ended."""
    if process.poll() is None:
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def compile_here(folder: Path) -> None:
    """C and then libraries: one with all the code, and for each module one that stands for it."""
    from mypyc.build import mypycify
    from setuptools import Distribution  # type: ignore[import-untyped]
    from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped]

    class Build(build_ext):  # type: ignore[misc]
        def build_extensions(self) -> None:
            if os.name == "posix":
                self.compiler.compile = all_at_once(self.compiler.compile)
            super().build_extensions()

    # Of this project's configuration nothing but the stubs holds for what is compiled: it has an older Python's view.
    os.environ["MYPYPATH"] = str(ROOT / "stubs")
    options = ["--config-file=", "--follow-imports=silent", "--ignore-missing-imports", "--cache-dir", os.devnull]
    paths = [f"usbip_capture/{name}.py" for name in MODULES.split()]
    extensions = mypycify(
        [*options, *paths], opt_level="1", debug_level="0", target_dir=str(folder / "c"), group_name="usbip_capture",
        multi_file=os.name == "posix",
    )  # fmt: skip
    if os.name == "posix":
        for extension in extensions:
            extension.extra_compile_args.append("-w")  # to look for what to warn of takes as long as all else
    distribution = Distribution({"name": "usbip-capture", "packages": [], "ext_modules": extensions})
    distribution.cmdclass["build_ext"] = Build
    build = distribution.get_command_obj("build_ext")
    build.build_lib, build.build_temp = str(folder / "lib"), str(folder / "temporary")
    distribution.run_command("build_ext")


def all_at_once(compile_one: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """As setuptools' method of a compiler, which takes one file after the other, on all processors."""

    def compile_all(sources: list[str], *args: Any, **options: Any) -> list[str]:
        with ThreadPoolExecutor(min(os.cpu_count() or 1, AT_ONCE)) as pool:
            made = pool.map(lambda source: compile_one([source], *args, **options), sources)
            return [file for files in made for file in files]

    return compile_all


if __name__ == "__main__":
    if importlib.util.find_spec("mypyc") is None:
        raise SystemExit("error: mypyc is not installed")
    compile_here(Path(sys.argv[1]).resolve())
