"""Runs `usbip-capture` as people do: by its name, in a folder of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]


def command_environment(folder: Path, **more: str) -> dict[str, str]:
    """PATH with `usbip-capture` and this Python in it; configuration and cache in `folder`."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, options in (("usbip-capture", "-W error -m usbip_capture.cli.main "), ("python3", "")):
        path = programs / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {options}"$@"\n')
        path.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "USBIP_CAPTURE_SERVERS")}
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        **more,
    }


def run_line(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A line for a shell, run in `folder`."""
    environment = command_environment(folder, **more)
    return subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def at_once(lines: Sequence[tuple[str, Path]]) -> list[subprocess.CompletedProcess[str]]:
    """Lines for a shell, each run in its folder, which is made: for those that mostly wait."""
    for _, folder in lines:
        folder.mkdir()
    with ThreadPoolExecutor(len(lines)) as pool:
        return list(pool.map(run_line, *zip(*lines, strict=True)))


def run_use(port: int, folder: Path, *arguments: str) -> str:
    """What a program prints that `usbip-capture use` runs on a server of this machine; it must end well."""
    command = [sys.executable, "-m", "usbip_capture.cli.main", "use", f"127.0.0.1:{port}", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
