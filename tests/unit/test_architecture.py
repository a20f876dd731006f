"""Imports go down only, and the lowest rooms are pure: held by reading the code, not by memory."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import usbip_capture

PACKAGE = Path(usbip_capture.__file__).parent

# Layer by layer, the lowest first. A room imports from the layers below it and from itself, never from its neighbours;
# within a layer only what stands left of a `<`.
LAYERS = """
    errors < system
    usb syslog
    wire records uart filters recordings options access < recorded
    device < tap net < tls
    capture devices simulated server coordinator
    replayed sessions < demo < servers live lending < control_socket configuration offering
    host relay collector vhci tunnel server_stream remote_usbmon
    pyusb_backend serial_port convert report comparing
    probe describe selftest use installation urlhandler usbip_client serving < capture_session fleet < web labgrid
    cli extcap pytest_plugin
"""
# Room -> (layer, step within the layer).
PLACES = {
    room: (layer, step)
    for layer, line in enumerate(LAYERS.strip().splitlines())
    for step, group in enumerate(line.split("<"))
    for room in group.split()
}
PURE_LAYERS = 2
#: What is not pure in the pure layers: what the platform decides, and where captures come from.
IMPURE_PLACES = ("system", "recordings/reading.py", "recordings/source.py")
IMPURE = {"socket", "threading", "time", "select", "selectors", "subprocess", "os", "asyncio", "pathlib", "tempfile"}
#: Where PyUSB may be imported: our backend, devices of other backends, the self-test, which tries PyUSB itself, and
#: labgrid's driver, whose tests get a device of PyUSB.
PYUSB_PLACES = (
    "pyusb_backend/",
    "use/",
    "devices/backend.py",
    "devices/over_pyusb.py",
    "labgrid/usb_driver.py",
    "selftest/device_checks.py",
    "selftest/session.py",
)
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_pure(path: Path) -> bool:
    return PLACES.get(room_of(path), (99, 0))[0] <= PURE_LAYERS and not name_of(path).startswith(IMPURE_PLACES)


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


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    assert room in PLACES, f"give the room {room!r} its layer in this test"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "usbip_capture" and len(parts) > 1 and parts[1] in PLACES and parts[1] != room:
            assert PLACES[parts[1]] < PLACES[room], f"{room} must not import {name}"
            # No neighbours either: of the same step there is no order.


@pytest.mark.parametrize("path", [p for p in FILES if is_pure(p)], ids=name_of)
def test_pure_rooms_know_no_socket_thread_clock_or_file(path: Path) -> None:
    assert not {name.split(".")[0] for name in imported(path)} & IMPURE


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_pyusb_is_imported_at_its_edge_only(path: Path) -> None:
    if not name_of(path).startswith(PYUSB_PLACES):
        assert not {name for name in imported(path) if name.split(".")[0] == "usb"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_libusb_is_imported_at_its_edge_only(path: Path) -> None:
    """Where it is imported when it is first needed."""
    assert not {name for name in imported(path) if name.split(".")[0] in ("usb1", "libusb_package")}
    if name_of(path) != "devices/libusb/binding.py":
        assert not {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)} & {
            "usb1",
            "libusb_package",
        }


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 45, f"{node.name} is long"


def test_every_room_has_its_line_in_the_documentation() -> None:
    page = (PACKAGE.parent / "docs/code-map.md").read_text()
    for room in PLACES:
        assert f"`{room}`" in page or f"/{room}`" in page or f"{room}.py`" in page, room
