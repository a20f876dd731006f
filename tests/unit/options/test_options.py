"""Options: declared once, checked on our side, and the README has the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from usbip_capture.errors import LocalProtocolError
from usbip_capture.extcap import arguments
from usbip_capture.net.address import DEFAULT_PORT
from usbip_capture.options.table import OPTIONS, Choices, markdown_table
from usbip_capture.syslog import LOG_PORT

BY_NAME = {option.name: option for option in OPTIONS}


def test_the_readme_has_the_table() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    assert markdown_table() in readme


def test_defaults() -> None:
    choices = Choices({})
    assert (choices.host, choices.port, choices.device, choices.mode) == ("", 3240, "auto", "probe")
    assert (choices.descriptors, choices.listen_in, choices.reconnect) == (True, True, True)
    assert (choices.snaplen, choices.duration, choices.count) == (262144, 0, 0)


def test_ports_are_those_of_the_modules_that_are_not_imported() -> None:
    assert (BY_NAME["port"].default, BY_NAME["syslog-port"].default) == (DEFAULT_PORT, LOG_PORT)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("host", " pi ", "pi"),
        ("host", "Rack 1", "Rack 1"),
        ("device", "serial=0001", "serial=0001"),
        ("port", "1", 1),
        ("port", "65535", 65535),
        ("device", "1-1.2", "1-1.2"),
        ("device", "303A:4004", "303A:4004"),
        ("device", "303a:4004:A-1:2,1-1", "303a:4004:A-1:2,1-1"),
        ("device", "auto", "auto"),
        ("device", "all", "all"),
        ("device", "1-1, 303a:4004", "1-1, 303a:4004"),
        ("log-level", "DEBUG", "debug"),
        ("listen-in", "OFF", False),
        ("listen-in", "true", True),
        ("reconnect", "0", False),
        ("duration", "2.5", 2.5),
        ("snaplen", "64", 64),
        ("log-level", "debug", "debug"),
    ],
)
def test_good_values(name: str, text: str, value: object) -> None:
    assert BY_NAME[name].parse(text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("host", "two/words"),
        ("host", "a/b"),
        ("port", "0"),
        ("port", "65536"),
        ("port", "-1"),
        ("port", "3240x"),
        ("port", "1e3"),
        ("port", "\u0663\u0662"),
        ("device", "303a:"),
        ("device", "303a:4004:"),
        ("device", "zzzz:4004"),
        ("listen-in", "maybe"),
        ("duration", "nan"),
        ("duration", "-1"),
        ("snaplen", "63"),
        ("count", "99999999999"),
        ("mode", "hover"),
        ("log-level", "loud"),
    ],
)
def test_wrong_values_name_option_value_and_what_is_possible(name: str, text: str) -> None:
    option = BY_NAME[name]
    with pytest.raises(LocalProtocolError) as caught:
        option.parse(text)
    message = str(caught.value)
    assert option.flag in message
    assert option.expectation in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--host", "pi", "--listen-in"], {"host": "pi", "listen-in": "on"}),
        (["--listen-in", "--host", "pi"], {"host": "pi", "listen-in": "on"}),
        (["--listen-in=false", "--extcap-some-new-option", "x", "--extcap-new"], {"listen-in": "false"}),
        (["--port", "1", "--port", "2"], {"port": "2"}),
    ],
)
def test_the_command_line_as_wireshark_and_people_give_it(argv: list[str], expected: dict[str, str]) -> None:
    assert arguments.given(arguments.parse(["--capture", *argv])) == expected


def test_an_option_without_its_value() -> None:
    with pytest.raises(LocalProtocolError, match="--port"):
        arguments.parse(["--capture", "--port"])


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--capture", "--hots", "pi"], "--hots is not an option: did you mean --host?"),
        (["--profile", "instal"], "--profile: 'instal' is not a possible value: did you mean install?"),
        (["--install", "--doctor"], "use either --doctor or --install, not both"),
        (["pi"], "'pi' is one argument too many: see usbip-extcap --help"),
    ],
)
def test_wrong_words_are_one_sentence(argv: list[str], sentence: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        arguments.parse(argv)
    assert str(caught.value) == sentence


def test_help_names_every_option() -> None:
    text = arguments.parser().format_help()
    assert [option.flag for option in OPTIONS if option.flag not in text] == []
