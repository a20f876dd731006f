"""One dialect for all commands: what is meant is called the same everywhere, and old spellings still work."""

from __future__ import annotations

import argparse
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.cli.commands import COMMANDS, module_of, parse, parser
from usbip_capture.cli.session import chosen_device, chosen_devices, chosen_server
from usbip_capture.cli.values import capture_file, socket_path
from usbip_capture.errors import LocalProtocolError
from usbip_capture.options.parsing import Parser, subparsers
from usbip_capture.servers.address import Selector

ONE_SERVER = ("probe", "control", "read", "write", "capture", "serial", "use", "selftest")
SERVERS = (*ONE_SERVER, "list", "ports", "relay")
NEEDED = {
    "control": ["--bm-request-type", "0x80", "--b-request", "6"],
    "read": ["--ep", "0x81"],
    "write": ["--ep", "1", "--text", "x"],
    "capture": ["-o", "x.pcapng"],
    "use": ["--", "program"],
}
#: Words that belong to one thing each, wherever an option has them.
METAVARS = {
    "--host": "HOST", "--device": "DEVICE", "--serial-number": "TEXT", "--vid": "NUMBER", "--pid": "NUMBER",
    "--pcap": "FILE", "--syslog-port": "PORT", "--connect-timeout": "SECONDS", "--transfer-timeout": "SECONDS",
    "--mdns-timeout": "SECONDS", "--duration": "SECONDS",
}  # fmt: skip


def of(command: str) -> Parser:
    return subparsers(parser(command))[command]


def shown(command: str) -> list[argparse.Action]:
    return [action for action in of(command)._actions if action.help != argparse.SUPPRESS]


def line(command: str, *words: str) -> argparse.Namespace:
    needed = NEEDED.get(command, [])
    return parse(command, [*words, *needed])


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_has_one_meaning_everywhere(command: str) -> None:
    for action in shown(command):
        for flag in action.option_strings:
            assert METAVARS.get(flag, action.metavar) == action.metavar, (command, flag)
        assert not {"--timeout", "--ctrl-timeout-ms"} & set(action.option_strings), command
        assert not (action.dest == "port" and command == "syslog")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    bare = ("bm_request_type", "b_request", "w_value", "w_index", "shell")
    assert [action.dest for action in shown(command) if not action.help and action.dest not in bare] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_options_and_values_are_one_sentence(command: str) -> None:
    made = of(command)
    for action in shown(command):
        for flag in action.option_strings:
            if not flag.startswith("--") or flag == "--help":
                continue
            misspelt = flag[:-2] + flag[-1] + "zq"
            with pytest.raises(LocalProtocolError, match=f"{misspelt} is not an option"):
                parse(command, [misspelt, *(["--", "program"] if command == "use" else [])])
            if action.type not in (None, str, capture_file, socket_path):
                with pytest.raises(LocalProtocolError, match=rf"^{action.option_strings[0]}.* ") as caught:
                    made.parse_args([flag, "\x7f?"])
                assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_numbers_have_bounds(command: str) -> None:
    for action in shown(command):
        if action.type is not None and callable(action.type):
            for text in ("1e400", "9" * 30):
                try:
                    value = action.type(text)
                except argparse.ArgumentTypeError:
                    continue
                assert isinstance(value, (str, bytes)), (command, action.dest, value)


@pytest.mark.parametrize("command", SERVERS)
def test_the_server_as_word_and_as_option(command: str) -> None:
    for words in (["pi"], ["--host", "pi"]):
        args = line(command, *words, "--port", "3241", "--connect-timeout", "7")
        server = args.servers[0] if args.host is None and command in ("list", "ports") else args.host or args.server
        assert (server, args.port, args.connect_timeout) == ("pi", 3241, 7)
        if command not in ("list", "ports"):
            assert str(chosen_server(args)) == "pi:3241"


@pytest.mark.parametrize("command", ONE_SERVER)
def test_the_device_as_word_and_as_option(command: str) -> None:
    for words in (["pi", "1-1.2"], ["pi", "--device", "1-1.2"], ["--host", "pi", "1-1.2"], ["--device", "1-1.2", "pi"]):
        args = line(command, *words)
        assert (args.server, chosen_devices(args)) == ("pi", [Selector(busid="1-1.2")])
    ids, number = ["--vid", "0x303a", "--pid", "0x4004"], ["--serial-number", "A B,C"]
    assert chosen_devices(line(command, "pi", *ids)) == [Selector(vid_pid=(0x303A, 0x4004))]
    assert chosen_device(line(command, "pi", *number)) == Selector(serial="A B,C")
    assert chosen_devices(line(command, "pi", *ids, *number)) == [Selector("", (0x303A, 0x4004), "A B,C")]
    assert chosen_device(line(command, "pi", "serial=A")) == Selector(serial="A")
    assert chosen_device(line(command, "pi")) == Selector()


@pytest.mark.parametrize("command", ONE_SERVER)
def test_options_and_words_in_any_order(command: str) -> None:
    args = line(command, "pi", "--port", "3241", "1-1", "--syslog")
    assert (args.server, args.device, args.port, args.syslog) == ("pi", "1-1", 3241, True)


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("list", "--timeout 3", "--connect-timeout 3"),
        ("ports", "--timeout 3", "--connect-timeout 3"),
        ("probe", "--timeout 3", "--connect-timeout 3"),
        ("control", "--timeout 3", "--connect-timeout 3"),
        ("capture", "--timeout 3", "--connect-timeout 3"),
        ("use", "--timeout 3", "--connect-timeout 3"),
        ("read", "--timeout 3", "--transfer-timeout 3"),
        ("write", "--timeout 3", "--transfer-timeout 3"),
        ("probe", "--ctrl-timeout-ms 1500", "--transfer-timeout 1.5"),
        ("control", "--ctrl-timeout-ms 1500", "--transfer-timeout 1.5"),
        ("discover", "--timeout 3", "--mdns-timeout 3"),
        ("syslog", "demo --port 1515", "demo --syslog-port 1515"),
    ],
)
def test_old_spellings_still_work(command: str, old: str, new: str) -> None:
    before, after = line(command, *old.split()), line(command, *new.split())
    assert {**vars(before), "run": 0} == {**vars(after), "run": 0}
    assert f"  {old.split()[-2]} " not in of(command).format_help()


@pytest.mark.parametrize("text", ["x.pcap", "x.PCAP", "x.cap", "x.pcap.gz"])
def test_a_name_that_promises_another_format_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"must not end with \.p?cap: captures are pcapng"):
        capture_file(text)


def test_a_pipe_may_be_called_anything(tmp_path_factory: pytest.TempPathFactory) -> None:
    import os

    path = str(tmp_path_factory.mktemp("pipe") / "usb.pcap")
    os.mkfifo(path)
    assert capture_file(path) == path
    assert capture_file("-") == "-"


def test_each_command_has_a_parser_of_ours() -> None:
    for command in COMMANDS:
        assert isinstance(of(command), Parser)
        assert import_module(module_of(command)).__doc__


def test_the_serial_command_takes_all_from_its_url() -> None:
    from usbip_capture.cli.serial import _url
    from usbip_capture.serial_port.url import PortUrl

    args = parse(
        "serial",
        ["--host", "pi", "--port", "3241", "303a:1001", "--serial-number", "A1", "--connect-timeout", "7", "--syslog"],
    )
    url = PortUrl.parse(_url(args))
    assert (str(url.server), url.server.timeout) == ("pi:3241", 7)
    assert (url.selector, url.serial, url.syslog) == (Selector(vid_pid=(0x303A, 0x1001)), "A1", 1514)
    args = parse("serial", ["[fe80::1%eth0]", "serial=B 2/x", "--reconnect", "3"])
    url = PortUrl.parse(_url(args))
    assert (url.server.host, url.selector, url.serial, url.reconnect) == ("fe80::1%eth0", Selector(), "B 2/x", 3)
    assert PortUrl.parse("usbip://pi/serial=A1") == PortUrl.parse("usbip://pi/?serial=A1")


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ("pi 80 06 0100 0 18", (0x80, 6, 0x100, 0, 18, None)),
        ("pi 0x80 0x06 0x0100 0x0 0x12", (0x80, 6, 0x100, 0, 18, None)),
        ("pi 1-1 80 6 300 409 255", (0x80, 6, 0x300, 0x409, 255, None)),
        ("--host pi c0 10 ffff 0 0", (0xC0, 0x10, 0xFFFF, 0, 0, None)),
        ("pi 40 10 0 0 01 0203", (0x40, 0x10, 0, 0, None, b"\1\2\3")),
        ("pi 40 10 0 0", (0x40, 0x10, 0, 0, None, None)),
        ("pi 80 06 0100 0 --length 18", (0x80, 6, 0x100, 0, 18, None)),
    ],
)
def test_a_control_transfer_in_short(words: str, request_: tuple[object, ...]) -> None:
    from usbip_capture.cli.control import take_request

    args = parse("control", words.split())
    take_request(args)
    assert args.server == "pi"
    assert args.device == ("1-1" if "1-1" in words else "")
    fields = args.bm_request_type, args.b_request, args.w_value, args.w_index, args.length, args.data_hex
    assert fields == request_


FLAGS = sorted({flag for command in COMMANDS for action in of(command)._actions for flag in action.option_strings})
WORDS = st.sampled_from(
    [*FLAGS, "pi", "1-1", "", "-", "--", "-1", "0x10", "x y", "a=b", "--host=pi", "80", "all", "\x1b"]
)


@given(st.sampled_from(list(COMMANDS)), st.lists(WORDS.filter(lambda w: w not in ("-h", "--help")), max_size=6))
def test_whatever_is_typed_is_understood_or_one_sentence(command: str, words: list[str]) -> None:
    output = "one sentence"
    try:
        parse(command, words)
    except LocalProtocolError as error:
        output = str(error)
    assert output
    assert "\n" not in output
