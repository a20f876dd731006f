"""Imports go down only, and the lowest rooms are pure: held by reading the code, not by memory."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import usbip_capture

PACKAGE = Path(usbip_capture.__file__).parent

# Room -> line. A room imports from lower lines and from itself, never from its neighbours.
LINES = {
    "errors": 0,
    "shown": 0,
    "durations": 0,
    "address": 1,
    "usb": 1,
    "wire": 2,
    "records": 2,
    "filters": 2,
    "syslog": 2,
    "uart": 2,
    "folders": 3,
    "private_files": 3,
    "replacement": 4,
    "device": 3,
    "forks": 3,
    "tap": 4,
    "net": 5,
    "listening": 5,
    "capture": 5,
    "report": 5,
    "devices": 6,
    "convert": 6,
    "server": 6,
    "demo_log": 6,
    "demo": 7,
    "configuration": 7,
    "usbids": 7,
    "demo_lsusb": 7,
    "hosts": 8,
    "pyusb_backend": 9,
    "collector": 9,
    "relay": 9,
    "live": 8,
    "used": 10,
    "probe": 10,
    "selftest": 10,
    "describe": 10,
    "option": 10,
    "serial_port": 10,
    "injected": 11,
    "options": 11,
    "discovery": 11,
    "console": 11,
    "urlhandler": 11,
    "serial_client": 11,
    "serial_bridge": 11,
    "usbip_client": 12,
    "installation": 12,
    "cli": 13,
    "extcap": 14,
    "__main__": 14,
}
PURE_LINES = 2
IMPURE = {"socket", "threading", "time", "select", "selectors", "subprocess", "os", "asyncio", "pathlib", "tempfile"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Every module named by an import statement, wherever it stands; those for type checkers only are left out."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "usbip_capture")
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    assert room in LINES, f"give the room {room!r} its line in this test"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "usbip_capture" and len(parts) > 1 and parts[1] in LINES and parts[1] != room:
            assert LINES[parts[1]] < LINES[room], f"{room} must not import {name}"


@pytest.mark.parametrize("path", [p for p in FILES if LINES.get(room_of(p), 99) <= PURE_LINES], ids=lambda p: p.stem)
def test_pure_rooms_know_no_socket_thread_clock_or_file(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported(path)} & IMPURE


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 45, f"{node.name} is long"


def test_every_room_has_its_line_in_the_documentation() -> None:
    page = (PACKAGE.parent / "docs/rooms.md").read_text()
    for room in LINES:
        assert f"`{room}`" in page or f"/{room}`" in page or f"{room}.py`" in page, room
