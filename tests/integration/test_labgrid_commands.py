"""`usbip-capture labgrid-exporter` and `labgrid-config` as a person runs them: what they print and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs.simulated_machine import BUSID, Machine, environment

CODE = "from usbip_capture.cli.main import main; import sys; sys.exit(main())"
#: Pythons that find no labgrid: none at all, and a folder of this name only.
WITHOUT = [
    "import importlib.util as u, types; find = u.find_spec; "
    f"u.find_spec = lambda name, *more: {found} if name == 'labgrid' else find(name, *more); "
    for found in ("None", "types.SimpleNamespace(origin=None)")
]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.close()


def run(folder: Path, *arguments: str, before: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + CODE, *arguments],
        cwd=folder, env=environment(folder, **more), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "without"), [(["labgrid-exporter", "exporter.yaml"], WITHOUT[0]), (["labgrid-config"], WITHOUT[1])]
)
def test_without_labgrid_a_sentence_has_what_to_install(
    arguments: list[str], without: str, machine: Machine, tmp_path: Path
) -> None:
    done = run(tmp_path, *arguments, before=without)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "labgrid, which is not installed: pip install 'usbip-capture[labgrid]'" in done.stderr


def test_nothing_else_imports_labgrid(tmp_path: Path) -> None:
    code = "import sys, usbip_capture.cli.main, usbip_capture.pytest_plugin, usbip_capture.serving; "
    code += "assert not [name for name in sys.modules if 'labgrid' in name]; "
    done = run(tmp_path, "list", "demo", before=code)
    assert done.returncode == 0, done.stderr


def test_a_configuration_is_what_is_plugged_in(machine: Machine, tmp_path: Path) -> None:
    done = run(tmp_path, "labgrid-config", "--allow", "192.0.2.0/24")
    assert (done.returncode, done.stderr) == (0, "")
    assert f'\n"{BUSID}":\n  UsbipDevice:\n    device: ' in done.stdout
    assert done.stdout.endswith('    allow: ["192.0.2.0/24"]\n')
    by_port = run(tmp_path, "labgrid-config", "--by-port")
    assert f'    device: "{BUSID}"\n' in by_port.stdout
    assert run(tmp_path, "labgrid-config", "--allow", "lab").returncode == 2


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        (None, 2, "there is no file exporter.yaml: `usbip-capture labgrid-config` writes one"),
        ("bench: [", 1, "exporter.yaml cannot be read: "),
        (
            "a:\n  UsbipDevice:\n    device: 1-1\n    listen: 0.0.0.0\n",
            1,
            "exporter.yaml: a/UsbipDevice: other machines",
        ),
    ],
)
def test_what_cannot_be_exported(text: str | None, code: int, sentence: str, machine: Machine, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "exporter.yaml").write_text(text)
    done = run(tmp_path, "labgrid-exporter", "exporter.yaml")
    assert done.returncode == code
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_coordinator_that_is_not_there(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "exporter.yaml").write_text(f"bench:\n  UsbipDevice:\n    device: {BUSID}\n")
    done = run(tmp_path, "labgrid-exporter", "exporter.yaml", LG_COORDINATOR="127.0.0.1:9")
    assert done.returncode == 100
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith(
        "usbip-capture: labgrid's coordinator at 127.0.0.1:9 cannot be reached: start it, or name another one with -c\n"
    )


def test_no_libusb(tmp_path: Path) -> None:
    (tmp_path / "exporter.yaml").write_text(f"bench:\n  UsbipDevice:\n    device: {BUSID}\n")
    (tmp_path / "usb1.py").write_text("raise ImportError('none here')\n")
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    done = run(tmp_path, "labgrid-exporter", "exporter.yaml", PYTHONPATH=path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "devices of this machine need the package libusb1" in done.stderr.splitlines()[-1]
