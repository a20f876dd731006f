"""Whether the placed launcher works: where it lies, what it starts, which version that is, and how fast it answers."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from usbip_capture import __version__
from usbip_capture.installation import placement
from usbip_capture.installation.health import FAILURE, OK, WARNING, Answer, Finding, ask, first_line, ourselves
from usbip_capture.options.table import INTERFACE

#: What Wireshark asks: name, arguments, what the answer must have in it. A filter that is refused is an answer too.
QUERIES = (
    ("interfaces", ("--extcap-interfaces", "--extcap-version=4.4"), f"{{value={INTERFACE}}}"),
    ("link types", ("--extcap-dlts", "--extcap-interface", INTERFACE), "dlt {"),
    ("options", ("--extcap-config", "--extcap-interface", INTERFACE), "arg {"),
    ("filter check", ("--extcap-capture-filter", "bulk", "--extcap-interface", INTERFACE), ""),
)
#: Slower than this is felt when Wireshark starts and with each key in its filter box, in seconds.
SLOW = 0.25
_TIMES = 3
_OLDEST_PYTHON = (3, 10)
# Prints two things one after the other: that Python lives, and that the library loads.
_PROBE = """\
import sys
print(*sys.version_info[:3], flush=True)
sys.path.insert(0, sys.argv[1])
import usbip_capture.extcap.main
print(usbip_capture.__version__)
"""


@dataclass(slots=True, frozen=True)
class Launcher:
    """What a placed launcher starts."""

    python: str
    library: str


def check(folders: list[Path], wireshark: str) -> Iterator[Finding]:
    """Findings about the launcher in the folders that `wireshark` reads; the first file found is the one it takes."""
    name = placement.file_name()
    path = next((folder / name for folder in folders if os.path.lexists(folder / name)), None)
    if path is None:
        yield _missing(folders[0], wireshark)
        return
    problem = file_problem(path)
    if problem is not None:
        yield problem
        return
    yield Finding(OK, f"the launcher is {path}")
    launcher = read(path)
    if launcher is None:
        yield Finding(FAILURE, f"{path} names no interpreter or no library", install_remedy())
        return
    for finding in _started(launcher):
        yield finding
        if finding.mark == FAILURE:
            return
    yield from _answers(path)


def read(path: Path) -> Launcher | None:
    """The interpreter and the library that a launcher names; None if it names none. Raises OSError."""
    text = path.read_text("utf-8", "replace")
    batch = re.search(r'^"(.+?)" -IS "(.+?)" %\*', text, re.MULTILINE)
    if batch:
        python, text = batch[1], Path(batch[2]).read_text("utf-8", "replace")
    else:
        shell = re.match(r"#!/bin/sh\n'''exec' '(.+)' -IS ", text)
        plain = re.match(r"#!(.+?) -IS\n", text)
        if not shell and not plain:
            return None
        python = shell[1].replace("'\\''", "'") if shell else plain[1] if plain else ""
    library = re.search(r'^LIBRARY = r"(.*)"', text, re.MULTILINE)
    return Launcher(python, library[1]) if library else None


def install_remedy() -> str:
    """The command that places the launcher anew."""
    return f"run '{ourselves()} --install'"


def _missing(folder: Path, wireshark: str) -> Finding:
    name = placement.file_name()
    others = [other for other in placement.candidates() if other != folder and placement.is_ours(other / name)]
    if others:
        text = f"the launcher lies in {others[0]}, but {wireshark} looks in {folder}"
    else:
        text = f"the launcher is not in {folder}, where {wireshark} looks"
    return Finding(FAILURE, text, install_remedy())


def file_problem(path: Path) -> Finding | None:
    """Why Wireshark would not run this file, or should not; None if it may."""
    try:
        path.read_bytes()
    except OSError as error:
        remedy = f"move it, then {install_remedy()}"
        return Finding(FAILURE, f"{path} cannot be read ({error.strerror})", remedy)
    if not placement.is_ours(path):
        remedy = f"move it, then {install_remedy()}"
        return Finding(FAILURE, f"{path} is not ours: Wireshark runs something else under our name", remedy)
    if os.name == "nt":
        return None
    if not os.access(path, os.X_OK):
        return Finding(FAILURE, f"{path} is not executable, so Wireshark passes it over", f"run 'chmod +x {path}'")
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        remedy = f"mount that file system with exec, or set WIRESHARK_EXTCAP_DIR and put {path.name} there"
        return Finding(FAILURE, f"{path.parent} is on a file system mounted noexec", remedy)
    return None


def _started(launcher: Launcher) -> Iterator[Finding]:
    """Its interpreter lives, its library loads, and both are of the right versions."""
    answer = ask(launcher.python, "-IS", "-c", _PROBE, launcher.library)
    lines = answer.out.splitlines()
    numbers = lines[0].split() if lines else []
    if len(numbers) != 3 or not all(number.isdigit() for number in numbers):
        reason = answer.problem or "does not answer as Python does"
        yield Finding(FAILURE, f"the launcher's interpreter {launcher.python} {reason}", install_remedy())
        return
    python = ".".join(numbers)
    if tuple(map(int, numbers)) < _OLDEST_PYTHON:
        remedy = "run install.py again, with Python 3.10 or later"
        yield Finding(FAILURE, f"the launcher's interpreter {launcher.python} is Python {python}, too old", remedy)
        return
    yield Finding(OK, f"its interpreter is {launcher.python}, Python {python}")
    if len(lines) < 2:
        yield Finding(FAILURE, _unloadable(launcher.library, answer), install_remedy())
    elif lines[1] != __version__:
        text = f"its library in {launcher.library} is version {lines[1]}, and this is {__version__}"
        yield Finding(WARNING, text, install_remedy())
    else:
        yield Finding(OK, f"its library is {launcher.library}, version {lines[1]}")


def _unloadable(library: str, answer: Answer) -> str:
    if not os.path.isdir(os.path.join(library, "usbip_capture")):
        return f"the library was moved or removed: there is no usbip_capture in {library}"
    lines = answer.error.strip().splitlines()
    reason = first_line(lines[-1]) if lines else answer.problem
    return f"the library in {library} does not load: {reason}"


def _answers(path: Path) -> Iterator[Finding]:
    for name, arguments, expected in QUERIES:
        times = []
        for _ in range(_TIMES):
            answer = ask(str(path), *arguments)
            problem = answer.problem or ("" if expected in answer.out else "gives no such answer")
            if problem:
                yield Finding(FAILURE, f"asked for its {name}, the launcher {problem}", _by_hand(path, arguments))
                break
            times.append(answer.seconds)
        else:
            yield _speed(name, statistics.median(times))


def _speed(name: str, seconds: float) -> Finding:
    text = f"{name}: answered in {seconds * 1000:.0f} ms"
    if seconds <= SLOW:
        return Finding(OK, text)
    remedy = "move Python and the library to a local disk, and look whether a virus scanner reads them each time"
    return Finding(WARNING, f"{text}, and Wireshark asks often", remedy)


def _by_hand(path: Path, arguments: tuple[str, ...]) -> str:
    shown = f"'{path}'" if " " in str(path) else path
    return f"see what it prints: {shown} {' '.join(arguments)}; then {install_remedy()}"
