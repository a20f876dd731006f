"""The command line without a process: what is understood, exit codes, the live view, hex dumps, completion."""

from __future__ import annotations

import argparse
import io
import re
import sys
import threading
from importlib import import_module

import pytest

from usbip_capture.capture.meter import Meter
from usbip_capture.cli import exits, groups, values
from usbip_capture.cli.commands import COMMANDS, module_of, parser, split
from usbip_capture.cli.completion import _busids, _first_words, _servers
from usbip_capture.cli.hexdump import hexdump
from usbip_capture.cli.live import LiveView
from usbip_capture.cli.main import main
from usbip_capture.cli.terminal import Paint, Waiting, cut, is_colourful, print_lines, report
from usbip_capture.demo.device import DemoDevice
from usbip_capture.errors import (
    CaptureError,
    DeviceGone,
    DeviceNotFound,
    ImportRefused,
    LocalProtocolError,
    RemoteProtocolError,
    RequestRefused,
    ServerLost,
    ServerUnreachable,
    TransferFailed,
    TransferTimeout,
    UsbipError,
)
from usbip_capture.servers import memory
from usbip_capture.servers.known import KnownDevice
from usbip_capture.usb.setup import get_descriptor, set_configuration
from usbip_capture.usb.status import ECONNRESET, ENODEV, ENOENT, EOPNOTSUPP, EPIPE, ETIMEDOUT
from usbip_capture.usb.urb import Completion, TransferType, Urb


@pytest.mark.parametrize(
    ("line", "command", "arguments"),
    [
        ("list pi", "list", "pi"),
        ("--host pi --pcap x --syslog list -v", "list", "--host pi --pcap x --syslog -v"),
        ("--host=list probe --vid 1", "probe", "--host=list --vid 1"),
        ("--syslog --host list list", "list", "--syslog --host list"),
        ("--help", "", ""),
        ("", "", ""),
        ("--host", "", ""),
    ],
)
def test_options_before_the_command(line: str, command: str, arguments: str) -> None:
    assert split(line.split()) == (command, arguments.split())


def test_every_shared_option_with_a_value_may_stand_before() -> None:
    shared = argparse.ArgumentParser()
    groups.add_servers(shared)
    groups.add_device(shared)
    groups.add_recording(shared)
    groups.add_transfer_timeout(shared, 1)
    groups.add_old_name(shared, "--timeout", "--connect-timeout", values.wait)
    flags = {f for a in shared._actions for f in a.option_strings if a.nargs is None and f.startswith("--")}
    assert flags == set(groups.VALUED)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_and_the_command_agree(name: str) -> None:
    commands = argparse.ArgumentParser().add_subparsers()
    import_module(module_of(name)).add_parser(commands)
    (choice,) = commands._choices_actions
    assert (choice.dest, choice.help) == (name, COMMANDS[name])
    assert name in parser().format_help()


@pytest.mark.parametrize(("word", "hint"), [("lst", "did you mean list?"), ("zzz", "see usbip-capture --help")])
def test_unknown_commands(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert hint in capsys.readouterr().err


def test_nothing_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().err


def _caused(cause: Exception) -> UsbipError:
    error = UsbipError("x")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CaptureError("x"), 1),
        (RemoteProtocolError("x"), 1),
        (ValueError("x"), 1),
        (LocalProtocolError("x"), 2),
        (ServerUnreachable("x"), 3),
        (ServerLost("x"), 3),
        (DeviceNotFound("x"), 4),
        (ImportRefused("x", 4), 4),
        (ImportRefused("x", 2), 5),
        (TransferFailed("x", -EPIPE), 6),
        (TransferFailed("x", -EOPNOTSUPP), 6),
        (RequestRefused("x", -ENOENT), 6),
        (DeviceGone("x", -ENODEV), 6),
        (TransferTimeout("x", -ECONNRESET, 0x81, 0.5), 7),
        (_caused(TransferFailed("x", -EPIPE)), 6),
        (_caused(TransferTimeout("x", -ETIMEDOUT)), 7),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exits.exit_code(error) == code
    assert code in exits.MEANINGS


def test_numbers_in_any_base() -> None:
    assert [values.number(text) for text in ("255", "0xff", "0b11111111", "0o377", "0XFF")] == [255] * 5
    assert values.data_hex("01 02:0304 0x05") == bytes([1, 2, 3, 4, 5])
    assert values.seconds("0.5") == 0.5
    for convert, text in [
        (values.number, "ff"), (values.number, "-1"), (values.number8, "256"), (values.number16, "0x10000"),
        (values.data_hex, "1"), (values.data_hex, "zz"), (values.seconds, "-1"), (values.seconds, "inf"),
        (values.seconds, "nan"), (values.seconds, "x"), (values.port, "0"), (values.port, "70000"),
    ]:  # fmt: skip
        with pytest.raises(argparse.ArgumentTypeError):
            convert(text)


def test_hex_dump() -> None:
    assert list(hexdump(bytes(range(0x3A, 0x4C)))) == [
        "00000000  3a 3b 3c 3d 3e 3f 40 41  42 43 44 45 46 47 48 49  |:;<=>?@ABCDEFGHI|",
        "00000010  4a 4b                                             |JK|",
    ]
    assert list(hexdump(b"")) == []


def test_the_live_view() -> None:
    view = LiveView()
    device = view.observe(DemoDevice())
    device.run(Urb.control(get_descriptor(1, 0, 0, 18).pack()), 1)
    device.run(Urb.control(set_configuration(1).pack()), 1)
    device.run(Urb.control(get_descriptor(9, 0, 0, 18).pack()), 1)
    device.run(Urb(TransferType.BULK, 0x04, 500_000, bytes(500_000)), 1)
    device.run(Urb(TransferType.BULK, 0x84, 500_000), 1)
    assert view.rows(0.5) == [
        "1-1          control         6.0     0.000       1  EPIPE (stall)",
        "1-1          0x04 OUT        2.0     1.000       0  success",
        "1-1          0x84 IN         2.0     1.000       0  success",
    ]
    assert view.rows(1.0)[1] == "1-1          0x04 OUT        0.0     0.000       0  success"
    device.close()


def test_what_was_unlinked_is_not_an_error() -> None:
    meter = Meter()
    urb = Urb(TransferType.BULK, 0x84, 512)
    meter.completed(meter.submitted(urb), urb, Completion(-104))
    assert meter.counts() == {}


class Terminal:
    def __init__(self, is_one: bool) -> None:
        self._is_one = is_one

    def isatty(self) -> bool:
        return self._is_one


def test_colours_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, file = Terminal(True), Terminal(False)
    assert is_colourful(terminal)  # type: ignore[arg-type]
    assert Paint(terminal)("\x1b[1m", "x") == "\x1b[1mx\x1b[0m"  # type: ignore[arg-type]
    assert Paint(file)("\x1b[1m", "x") == "x"  # type: ignore[arg-type]
    assert not is_colourful(None)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not is_colourful(terminal)  # type: ignore[arg-type]
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not is_colourful(terminal)  # type: ignore[arg-type]


def test_text_is_cleaned_where_it_leaves_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report("a\x1b[2J\x07b\u202e\u061c\nusbip-capture: all is well")
    print_lines(["a\nb", "c"])
    output = capsys.readouterr()
    assert output.err == "usbip-capture: a\\x1b[2J\\x07b\\u202e\\u061c\\nusbip-capture: all is well\n"
    assert output.out == "a\\nb\nc\n"


def test_completion_of_servers_and_busids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", "bench=192.0.2.10:3241,pi")
    memory.remember_server("192.0.2.10", 3241)
    memory.remember_devices("192.0.2.10", 3241, [KnownDevice("1-1", "303a:4004"), KnownDevice("1-2", "303a:4004")])
    assert _servers() == ["demo", "local", "bench", "192.0.2.10:3241", "pi"]
    assert _busids(argparse.Namespace(server="bench")) == ["1-1", "1-2"]
    assert _busids(argparse.Namespace(server=None, host="demo")) == ["1-1"]
    assert _busids(argparse.Namespace(server=None, host=None)) == []
    assert _first_words(argparse.Namespace(server=None, host="demo", device=None)) == ["1-1"]
    assert _first_words(argparse.Namespace(server=None, host=None, device=None)) == _servers()


def test_the_version_imports_next_to_nothing() -> None:
    import subprocess

    code = "import sys; from usbip_capture.cli.main import main; main(['--version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, modules = done.stdout.splitlines()
    assert re.fullmatch(r"usbip-capture [\d.]+ \((compiled|pure Python)\)", version)
    assert not {"argparse", "re", "socket", "threading", "typing", "logging", "zeroconf", "usb"} & set(modules.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parser(command).parse_args([command, "--help"])
    shown = capsys.readouterr().out
    assert "usbip-capture" in shown.partition("options:")[2]  # an example
    wide = [line for line in shown.splitlines() if len(line) > 80]
    # Command lines stay whole, to be copied; argparse does not break a list of choices.
    assert all(line.startswith("  usbip-capture ") or " usbip-capture " in line or "{" in line for line in wide), wide


def test_lines_are_cut_to_the_width_of_the_terminal() -> None:
    assert cut("abcdef", 4) == "abcd"
    assert cut("\x1b[1mabcdef\x1b[0m", 4) == "\x1b[1mabcd\x1b[0m"  # colours take no room, and end
    assert cut("日本語x", 5) == "日本"
    assert cut("日本語x", 7) == "日本語x"


def test_threads_that_print_at_once_while_something_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    begun = threading.Barrier(2)

    def print_in_two_pieces(name: str) -> None:
        sys.stderr.write(name * 10)
        begun.wait(10)
        sys.stderr.write("\n")

    with Waiting("waiting"):
        threads = [threading.Thread(target=print_in_two_pieces, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sys.stderr is screen
    shown = [part.rpartition("\x1b[K")[2] for part in screen.getvalue().split("\n")]
    assert sorted(shown[:-1]) == ["a" * 10, "b" * 10]


def test_what_no_limit_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser("serve").parse_args(["serve", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for option in ("--max-clients", "--max-devices"):
        assert f"{option} N at a time; 0: no limit (default: 0)" in shown
