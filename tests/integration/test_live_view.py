"""The live view on a terminal: nothing that is printed meanwhile is lost, whoever prints it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.programs.terminal_emulator import Terminal

#: Everything that writes to standard error in its own way, while three lines stand below.
PROGRAM = """
import logging, os, subprocess, sys, warnings
from usbip_capture.cli.standing import StandingLines
early = logging.StreamHandler()          # it keeps the stream of its birth
logging.getLogger().addHandler(early)
with StandingLines() as standing:
    for turn in range(20):
        standing.show([f"view {turn}", "-" * 300, "end of view"])
        print(f"print {turn}", file=sys.stderr)
        logging.warning("log %d", turn)
        warnings.warn(f"warning {turn}", stacklevel=1)
        os.write(2, f"os {turn}\\n".encode())
        subprocess.run(["sh", "-c", f"echo child {turn} >&2"])
        os.write(2, b"half ")
        os.write(2, f"line {turn}\\n".encode())
        sys.stderr.flush()
print("after", file=sys.stderr)
"""
KINDS = ("print", "log", "warning", "os", "child", "half line")


def test_whatever_writes_to_standard_error_goes_above_the_lines(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    terminal = Terminal(80, 12)
    assert terminal.run("python3 program.py", tmp_path) == 0
    for kind in KINDS:
        found = [line for line in terminal.text if re.search(rf"{kind} \d+$", line)]
        assert [int(line.rpartition(" ")[2]) for line in found] == list(range(20)), kind
    views = [line for line in terminal.text if line.startswith("view ")]
    assert views == ["view 19"]
    assert terminal.text[-4:] == ["view 19", "-" * 79, "end of view", "after"]


def test_a_window_that_changes_its_size(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    terminal = Terminal(100, 30)
    sizes = iter([(60, 20), (140, 50), (40, 8), (90, 25)])

    def resize(terminal: Terminal) -> None:
        if b"print 4" in terminal.raw and (size := next(sizes, None)) is not None:
            terminal.resize(*size)

    assert terminal.run("python3 program.py", tmp_path, resize) == 0
    for kind in KINDS:  # a stale view may stay, also below the last line, but nothing else is erased
        assert sum(f"{kind} {turn}" in terminal.raw.decode() for turn in range(20)) == 20
    assert terminal.text.count("after") == 1


def test_every_log_line_of_a_capture_stays_on_the_screen(tmp_path: Path) -> None:
    terminal = Terminal()
    assert terminal.run("usbip-capture capture demo --syslog -o x.pcapng --duration 3.5", tmp_path) == 0
    raw = terminal.raw.decode()
    logged = set(re.findall(r"\[syslog\] [^\r\n\x1b]+", raw))
    assert len(logged) > 5, raw
    assert logged <= set(terminal.text)
    assert sum("last status" in line for line in terminal.text) == 1
    assert terminal.text[-1].startswith("usbip-capture: ")


def test_ctrl_c_and_the_last_message_are_on_two_lines(tmp_path: Path) -> None:
    for options in ("", "--no-live"):
        terminal = Terminal()
        typed: list[bool] = []

        def stop(terminal: Terminal, typed: list[bool] = typed, options: str = options) -> None:
            begun = b"last status" if not options else b"reading the log"
            if not typed and begun in terminal.raw:
                typed.append(True)
                terminal.type(b"\x03")

        assert terminal.run(f"exec usbip-capture capture demo --syslog -o x.pcapng {options}", tmp_path, stop) == 0
        assert b"^C" in terminal.raw
        summary = [line for line in terminal.text if "dropped, in x.pcapng" in line]
        assert len(summary) == 1
        assert re.fullmatch(r"usbip-capture: \d+ packets?, 0 dropped, in x.pcapng", summary[0])


def test_what_is_printed_while_something_is_waited_for(tmp_path: Path) -> None:
    terminal = Terminal()
    assert terminal.run("usbip-capture read demo --ep 0x83 --count 6 --syslog", tmp_path) == 0
    assert "(Ctrl-C ends)" in terminal.raw.decode()
    assert not [line for line in terminal.text if "(Ctrl-C ends)" in line]
    shown = [line for line in terminal.text if "[syslog]" in line or "usbip-capture:" in line]
    assert len(shown) > 1
    assert all(line.startswith(("[syslog]", "usbip-capture:")) for line in shown)
    assert sum(bool(re.match("00000000  ", line)) for line in terminal.text) == 6


def test_a_dumb_terminal_gets_no_escape_sequences(tmp_path: Path) -> None:
    for line in (
        "usbip-capture capture demo -o x.pcapng --duration 1.5 --syslog",
        "usbip-capture read demo --ep 0x83",
        "usbip-capture discover --timeout 0.1",
        "usbip-capture syslog demo --pcap x.pcapng & sleep 1; kill $!; wait",
        "usbip-capture stats x.pcapng",
        "usbip-capture list --help",
    ):
        terminal = Terminal()
        terminal.run(line, tmp_path, TERM="dumb")
        assert terminal.raw
        assert b"\x1b" not in terminal.raw
