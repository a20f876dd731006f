"""Completion in the shells themselves, as far as they are installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.programs.commands import run_line
from usbip_capture.control_socket.serving import ControlSocket, Handler

BASH = """
eval "$(usbip-capture completion bash)"
complete() {{ :; }}
COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9
COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_python_argcomplete usbip-capture
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
autoload -Uz compinit && compinit -u -D && eval "$(usbip-capture completion zsh)"
print -r -- $_comps[usbip-capture]
"""
LINES = {
    "usbip-capture disc": {"discover"},
    "usbip-capture list ben": {"bench"},
    "usbip-capture --host ben": {"bench"},
    "usbip-capture capture --fil": {"--filter"},
    "usbip-capture probe demo --device 1": {"1-1"},
    "usbip-capture probe demo 1": {"1-1"},
    "usbip-capture --host demo serial 1": {"1-1"},
    "usbip-capture probe --ctrl": set(),
    "usbip-capture --host demo prob": {"probe"},
}


@pytest.mark.parametrize("line", LINES)
def test_bash(line: str, tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    (tmp_path / "try.bash").write_text(BASH.format(line=line))
    done = run_line("bash --norc try.bash", tmp_path, USBIP_CAPTURE_SERVERS="bench=192.0.2.10")
    assert {word.strip() for word in done.stdout.split()} == LINES[line], done.stderr


@pytest.mark.parametrize(
    ("line", "words"), [("kick 1", {"1-1"}), ("kick --server b", {"bench"}), ("reset --server x 1", set())]
)
def test_what_a_running_server_exports(line: str, words: set[str], tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    (tmp_path / "try.bash").write_text(BASH.format(line=f"usbip-capture {line}"))
    handlers: dict[str, Handler] = {"status": lambda request: {"devices": [{"busid": "1-1"}, {"busid": "2-1"}]}}
    control = ControlSocket("bench", handlers)
    try:
        done = run_line("bash --norc try.bash", tmp_path)
    finally:
        control.close()
    assert {word.strip() for word in done.stdout.split()} == words, done.stderr


@pytest.mark.parametrize("line", LINES)
def test_fish(line: str, tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    (tmp_path / "try.fish").write_text(f"usbip-capture completion fish | source\ncomplete -C '{line}'\n")
    more = {"HOME": str(tmp_path), "USBIP_CAPTURE_SERVERS": "bench=192.0.2.10"}
    done = run_line("fish --no-config try.fish", tmp_path, **more)
    assert {word.split()[0] for word in done.stdout.splitlines()} == LINES[line], done.stderr


def test_zsh_takes_it(tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    (tmp_path / "try.zsh").write_text(ZSH)
    done = run_line("zsh -f try.zsh", tmp_path, HOME=str(tmp_path))
    assert done.stdout.strip() == "_python_argcomplete", done.stderr
