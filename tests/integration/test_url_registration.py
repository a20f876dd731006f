"""usbip:// is known to programs that know nothing of us, and costs those nothing that want none of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs.usbip_ports import ROOT, environment

pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")


def python(code: str, env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pyserial_knows_us_and_nobody_sees_why(tmp_path: Path) -> None:
    code = (
        "import sys, serial; print(serial.protocol_handler_packages[-1], type(serial.__loader__).__name__, "
        "type(serial.__spec__.loader).__name__, [f for f in sys.meta_path if 'usbip' in repr(f)])"
    )
    assert python(code, environment(tmp_path)).strip() == (
        "usbip_capture.urlhandler SourceFileLoader SourceFileLoader []"
    )


def test_a_start_without_pyserial_imports_nothing_of_weight(tmp_path: Path) -> None:
    code = "import sys; print(*sorted(sys.modules))"
    loaded = set(python(code, environment(tmp_path)).split())
    # Without its site folder, where this Python may have the file too; `site` itself is needed by nothing of ours.
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import site; {code}"], capture_output=True, text=True, check=True
    )
    ours = {"usbip_capture", "usbip_capture.urlhandler", "usbip_capture.urlhandler.registration"}
    assert {name for name in loaded if name.startswith("usbip_capture")} == ours
    assert not {"typing", "importlib.abc", "serial", "usb", "logging", "threading"} & loaded - set(bare.stdout.split())


def test_the_way_that_pyserial_documents() -> None:
    code = (
        "import serial; serial.protocol_handler_packages.append('usbip_capture.urlhandler');"
        "print(type(serial.serial_for_url('usbip://demo/1-1', do_not_open=True)).__module__)"
    )
    assert python(code, {"PYTHONPATH": str(ROOT)}).strip() == "usbip_capture.urlhandler.protocol_usbip"


def test_another_module_of_that_name_is_left_alone(tmp_path: Path) -> None:
    env = environment(tmp_path)
    (tmp_path / "serial.py").write_text("name = 'another'\n")
    assert python("import serial; print(serial.name)", env).strip() == "another"


def test_what_is_missing_is_reported_and_not_an_unknown_protocol(tmp_path: Path) -> None:
    (tmp_path / "pcapng").mkdir()
    (tmp_path / "pcapng" / "__init__.py").write_text("raise ImportError('gone', name='pcapng')\n")
    code = (
        "import serial\ntry:\n    serial.serial_for_url('usbip://demo/1-1?pcap=x.pcapng')\n"
        "except serial.SerialException as error:\n    print(error)"
    )
    output = python(code, environment(tmp_path))
    assert "package pcapng, which is missing" in output
    assert "pip install" in output


def test_without_pyserial_the_handler_reports_it(tmp_path: Path) -> None:
    (tmp_path / "serial.py").write_text("raise ImportError('no pyserial')\n")
    code = "try:\n    import usbip_capture.urlhandler.protocol_usbip\nexcept ImportError as error:\n    print(error)"
    assert "pipx inject usbip-capture pyserial" in python(code, environment(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "usbip_capture.cli.main", "serial", "demo", "--tcp", "0"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pyserial is missing" in done.stderr


@pytest.mark.parametrize(
    "code",
    [None, "this is no Python\n", "raise SystemExit(3)\n", "raise KeyboardInterrupt\n"],
    ids=["without the package", "with a broken one", "with one that exits", "with one that is interrupted"],
)
def test_python_starts_in_silence_whatever_has_become_of_the_package(tmp_path: Path, code: str | None) -> None:
    env = environment(tmp_path)
    env["PYTHONPATH"] = str(tmp_path)
    if code is not None:
        (tmp_path / "usbip_capture").mkdir()
        (tmp_path / "usbip_capture" / "__init__.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import sitecustomize; print('well')"],  # -S: not the one that is installed
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("well\n", "")
