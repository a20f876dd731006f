"""What a person at a terminal sees: progress while it waits, the live view drawn over itself, colours."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

from tests.programs.commands import command_environment


def on_a_terminal(line: str, folder: Path, **more: str) -> str:
    """All that a command writes to its terminal."""
    ours, theirs = pty.openpty()
    environment = command_environment(folder, TERM="xterm", COLUMNS="100", LINES="30", **more)
    with subprocess.Popen(
        line, shell=True, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        output = b""
        try:
            while data := os.read(ours, 65536):
                output += data
        except OSError:  # so a terminal ends on Linux
            pass
        os.close(ours)
        assert process.wait(30) == 0 or "discover" in line
    return output.decode().replace("\r\n", "\n")


def test_the_live_view_is_drawn_over_itself(tmp_path: Path) -> None:
    output = on_a_terminal("usbip-capture capture demo -o x.pcapng --duration 2.5", tmp_path)
    assert "connecting to demo ... (Ctrl-C ends)" in output
    assert re.search(r"\x1b\[1m1 s, \d+ packets, 0 dropped\x1b\[0m; Ctrl-C stops\x1b\[K\n", output)
    assert re.search(r"device +endpoint +URB/s +MB/s +errors  last status\x1b\[K\n", output)
    assert re.search(r"\x1b\[5F.*2 s", output)  # title, heads and three endpoints, drawn once more


def test_a_capture_without_the_live_view(tmp_path: Path) -> None:
    output = on_a_terminal("usbip-capture capture demo -o x.pcapng --duration 1.5 --no-live", tmp_path)
    assert "URB/s" not in output


def test_no_colours_where_they_are_not_wanted(tmp_path: Path) -> None:
    output = on_a_terminal("usbip-capture capture demo -o x.pcapng --duration 1.5", tmp_path, NO_COLOR="1")
    assert "1 s, " in output
    assert "\x1b[1m" not in output


def test_progress_is_erased(tmp_path: Path) -> None:
    output = on_a_terminal("usbip-capture read demo --ep 0x83", tmp_path)
    assert "reading endpoint 0x83 ... (Ctrl-C ends)\r\x1b[K00000000  00 00" in output
    output = on_a_terminal("usbip-capture discover --timeout 0.1", tmp_path)
    assert "looking for servers ... (Ctrl-C ends)" in output


def test_a_capture_does_not_go_to_a_terminal(tmp_path: Path) -> None:
    output = on_a_terminal("usbip-capture capture demo -o - || true", tmp_path)
    assert "standard output is a terminal: redirect it" in output
