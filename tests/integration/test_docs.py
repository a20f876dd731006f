"""The pages in `docs/` stay true: links lead somewhere, filters and names exist, commands run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs.extcap_launcher import ROOT, wireshark_environment
from usbip_capture.cli import commands, serve
from usbip_capture.cli.main import main
from usbip_capture.extcap import controls
from usbip_capture.filters.language import parse
from usbip_capture.net.networks import listen_address
from usbip_capture.options.table import OPTIONS
from usbip_capture.servers.server_table import parse_server_table

DOCS = sorted((ROOT / "docs").glob("*.md"))
HELP = (ROOT / "usbip_capture/extcap/help.html").read_text()
TSHARK = re.findall(r"^\$ (.*)$", (ROOT / "docs/tshark.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", [*DOCS, ROOT / "README.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_examples_of_filters_are_filters() -> None:
    examples = (ROOT / "docs/filters.md").read_text().partition("Examples:")[2]
    found = re.findall(r"`([^`]+)`", examples)
    assert len(found) > 5
    for text in found:
        assert parse(text)


def test_the_help_page_names_every_option_and_control() -> None:
    for option in OPTIONS:
        assert f"<b>{option.display}</b>" in HELP, option.display
    for line in [line for line in controls.sentences() if line.startswith("control ")]:
        (display,) = re.findall(r"\{display=([^}]*)\}", line)
        assert f"<b>{display}</b>" in HELP, display


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of the page run, one after the other, as its reader does."""
    return tmp_path_factory.mktemp("docs")


@pytest.mark.wireshark
@pytest.mark.parametrize("command", TSHARK)
def test_commands_of_the_tshark_page_run(command: str, folder: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    if "xxd" in command and shutil.which("xxd") is None:
        pytest.skip("xxd is not installed")
    environment = {**wireshark_environment(folder), "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    (folder / "bin").mkdir(exist_ok=True)
    for name, program in (
        ("usbip-extcap", str(folder / ".config/wireshark/extcap/usbip-extcap")),
        ("usbip-capture", "-m usbip_capture.cli.main"),
    ):
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {program} "$@"\n')
        path.chmod(0o755)
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    if "-w capture" not in command and "-o capture" not in command and "urb_status < 0" not in command:
        assert done.stdout.strip(), done.stderr


SERVE = re.findall(r"^\$ usbip-capture serve (.*)$", (ROOT / "docs/server.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("line", SERVE)
def test_commands_of_the_server_page_are_understood(line: str) -> None:
    """They need devices to run; `test_serve_command.py` runs others like them."""
    args = commands.parse("serve", shlex.split(line))
    if not args.restore:
        settings = serve.settings(args)
        assert settings.exports or args.service
        for text in settings.listen:
            assert listen_address(text)


def test_commands_and_rules_of_the_access_page_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/access.md").read_text()
    lines = re.findall(r"^\$ usbip-capture (access .*)$", page, re.MULTILINE)
    assert len(lines) > 5
    for line in lines:
        assert main(shlex.split(line)) == 0, capsys.readouterr().err
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert parse_server_table(text.encode(), "the page").rules


def test_the_configuration_of_the_server_page_can_be_read() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/server.md").read_text(), re.DOTALL)
    table = parse_server_table(text.encode(), "the page")
    assert table.exports
    assert table.max_clients
