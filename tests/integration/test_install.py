"""`install.py` as a user runs it: into an empty home, the demo with and without tshark, and everything removed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.programs.extcap_launcher import ROOT

pytestmark = pytest.mark.slow

PIP_FAILED = "pip could not install"


def own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "PYTHON"))}


@cache
def pip_cache() -> dict[str, str]:
    """Where pip keeps for this user what it has downloaded: in an empty home it would download all of it again."""
    command = [sys.executable, "-m", "pip", "cache", "dir"]
    done = subprocess.run(command, env=own_environment(), capture_output=True, text=True, check=False)
    return {} if done.returncode else {"PIP_CACHE_DIR": done.stdout.strip()}


def install(home: Path, *options: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run it in `home`, from an empty folder."""
    # The pure build: that compiles in no time, and the compiled one is built and tested by `install.py --test`.
    environment = {**own_environment(), **pip_cache(), "HOME": str(home), "USBIP_CAPTURE_COMPILED": "0"}
    environment["PATH"] = path or environment["PATH"]
    folder = home / "somewhere"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "install.py"), *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if PIP_FAILED in done.stderr:
        pytest.skip(f"PyPI is not reached from here: {done.stderr[-300:]}")
    return done


def ours(home: Path) -> list[Path]:
    """What we have left in `home`; other programs keep things there too."""
    return [path for path in home.rglob("*usbip*") if "somewhere" not in path.parts]


@pytest.mark.wireshark
def test_from_an_empty_home_and_back(tmp_path: Path) -> None:
    home = tmp_path / "h\u00f6me with blank"
    # Without tshark: a PATH that has Python and nothing else.
    only_python = tmp_path / "bin"
    only_python.mkdir()
    done = install(home, "--demo", path=str(only_python))
    assert done.returncode == 0, done.stderr
    capture = home / "somewhere" / "demo.pcapng"
    assert capture.stat().st_size > 4000
    assert f"The capture is {capture}" in done.stdout
    assert "0x83 interrupt IN" in done.stdout
    assert "syslog0: syslog, log of demo" in done.stdout

    if shutil.which("tshark"):
        done = install(home, "--demo")
        assert done.returncode == 0, done.stderr
        assert "strings:    usbip_capture, Demo device, DEMO0001" in done.stdout
        assert "keys typed: u s b i p" in done.stdout
        assert re.search(r"its log:    I \(\d+\) usb: imported by a host; ", done.stdout)
        assert done.stdout.strip().splitlines()[-3:][0] == f"The capture is {capture}"

        done = install(home, "--doctor")
        assert done.returncode == 0, done.stdout
        assert "lists usbip-remote" in done.stdout
        done = install(home, "--profile")
        assert done.returncode == 0, done.stderr
        assert (home / ".config/wireshark/profiles/USB-IP/dfilter_buttons").is_file()

    assert ours(home)
    done = install(home, "--uninstall")
    assert done.returncode == 0, done.stderr
    assert ours(home) == []
    assert "Removed" in done.stdout
    assert not (home / ".config/wireshark/profiles/USB-IP").exists()


def test_a_foreign_extcap_is_left_alone(tmp_path: Path) -> None:
    """The environment, which the test above makes anew, is here that of the tests."""
    for folder in (".config/wireshark/extcap", ".local/lib/wireshark/extcap"):
        foreign = tmp_path / folder / "usbip-extcap"
        foreign.parent.mkdir(parents=True)
        foreign.write_text("#!/bin/sh\n")
    program = (
        "import pathlib, sys, install\n"
        "install.make_environment = install.install_package = lambda environment: None\n"
        "install.home = lambda: pathlib.Path(sys.prefix)\n"
        "sys.exit(install.main())\n"
    )
    environment = {**own_environment(), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "the plug-in is not in Wireshark's folder" in done.stderr
    assert "not ours" in done.stderr
    assert "Traceback" not in done.stderr
    assert foreign.read_text() == "#!/bin/sh\n"


def test_a_relative_home() -> None:
    code = "import install; print(install.home())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"HOME": "here"}, capture_output=True, check=True)
    assert Path(os.fsdecode(done.stdout)).is_absolute()


@pytest.mark.parametrize("option", ["--doctor", "--profile", "--profile remove"])
def test_what_needs_the_installed_program(option: str, tmp_path: Path) -> None:
    done = install(tmp_path, *option.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "install.py: nothing is installed yet: run 'python3 install.py' first.\n"


@pytest.mark.parametrize("option", ["--nonsense", "--demo --test", "--profile nonsense", "--doctor --demo"])
def test_wrong_arguments(option: str, tmp_path: Path) -> None:
    done = install(tmp_path, *option.split())
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.mark.parametrize(("tests", "types", "code"), [(0, 0, 0), (0, 1, 1), (2, 0, 2), (2, 1, 2)])
def test_types_are_checked_beside_the_tests(tests: int, types: int, code: int, tmp_path: Path) -> None:
    """What is printed about them comes when the tests have ended."""
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f'    "-m mypy") touch begun; echo "types are seen"; exit {types};;\n'
        "    *pytest*) while [ ! -e begun ]; do sleep 0.01; done\n"
        f'              echo "tests are seen: $*"; exit {tests};;\n'
        '    *hatchling*) for folder; do true; done; touch "$folder/it-py3-none-any.whl";;\n'  # as without a compiler
        "esac\n"
    )
    python.chmod(0o755)
    program = (
        "import pathlib, sys, install\n"
        "install.make_environment = install.pip = lambda *arguments, **options: None\n"
        "install.install_test_packages = lambda: None\n"
        f"install.ROOT = pathlib.Path({str(tmp_path)!r})\n"
        f"install.test_requirements, install.program = list, lambda *arguments: {str(python)!r}\n"
        "sys.exit(install.test([], long=False))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    printed = re.findall(r"^(?:tests|types) are seen.*|^\$ python -m .*", done.stdout, re.MULTILINE)
    workers = f"-m pytest -n {(os.cpu_count() or 1) + 2}"
    assert printed[2:] == [f"$ python {workers}", f"tests are seen: {workers}", "$ python -m mypy", "types are seen"]


@pytest.mark.parametrize(("fails", "code"), [("once", 0), ("always", 1)])
def test_what_failed_beside_others_is_tried_again_alone(fails: str, code: int, tmp_path: Path) -> None:
    """With one worker, which is enough to be beside others."""
    (tmp_path / "test_it.py").write_text(
        "from pathlib import Path\n"
        "def test_it():\n"
        "    seen = Path('seen'); there = seen.exists(); seen.touch()\n"
        f"    assert there and {fails != 'always'}\n"
        "def test_another():\n"
        "    assert not Path('another').exists()\n"
        "    Path('another').touch()\n"
    )
    program = (
        "import pathlib, subprocess, sys, install; here = pathlib.Path.cwd()\n"
        "install.ROOT, install.LAST_FAILED = here, here / '.pytest_cache/v/cache/lastfailed'\n"
        "subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'xdist.plugin', '-n', '1'], check=False)\n"
        "sys.exit(install.again_alone(sys.executable, dict(install.os.environ)))\n"
    )
    # Plug-ins that happen to be installed take longer than the tests.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout
    assert "tried again alone:\n  test_it.py::test_it\n" in done.stdout
    assert ("1 passed" if fails == "once" else "1 failed") in done.stdout.splitlines()[-1]
