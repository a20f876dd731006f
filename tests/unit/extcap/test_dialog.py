"""The options dialog: which options each interface has, the list of devices, and Reload."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from usbip_capture.demo.device import DemoServer
from usbip_capture.extcap import dialog
from usbip_capture.options.table import OPTIONS
from usbip_capture.servers import memory
from usbip_capture.servers.known import KnownDevice, read_cache


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", "pi")
    return tmp_path


def fields(line: str) -> dict[str, str]:
    return dict(re.findall(r"\{([a-z]+)=([^{}]*)\}", line))


def devices(lines: list[str]) -> list[str]:
    number = next(index for index, option in enumerate(OPTIONS) if option.name == "device")
    values = [fields(line) for line in lines if line.startswith("value ")]
    return [value["value"] for value in values if value["arg"] == str(number)]


def test_a_servers_own_interface_has_no_host() -> None:
    calls = [fields(line)["call"] for line in dialog.answer(["--extcap-interface", "usbip-pi"]) if "{call=" in line]
    assert calls == [option.flag for option in OPTIONS if option.name not in ("host", "port")]


def test_the_last_listing_is_shown() -> None:
    memory.remember_server("pi", 3240)
    memory.remember_devices("pi", 3240, [KnownDevice("1-1.2", "303a:4004", "Bridge (x)")])
    lines = dialog.answer(["--extcap-interface", "usbip-pi"])
    assert devices(lines) == ["auto", "all", "1-1.2"]
    assert any("{display=1-1.2   303a:4004   Bridge (x)}" in line for line in lines)


def test_a_reload_keeps_what_devices_called_themselves() -> None:
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    try:
        memory.remember_server("127.0.0.1", port)
        memory.remember_product("127.0.0.1", port, "1-1", "1209:0001", "Thing", "SN-7")
        lines = reload("--host", "127.0.0.1", "--port", str(port))
    finally:
        server.close()
    assert any("{display=1-1   1209:0001   Thing   SN-7}" in line for line in lines), lines
    (device,) = read_cache().devices["127.0.0.1", port]
    assert (device.name, device.serial) == ("Thing", "SN-7")


def test_what_is_stored_is_always_shown(home: Path) -> None:
    memory.remember_server("pi", 3240)
    memory.remember_devices("pi", 3240, [KnownDevice("1-1", "303a:4004")])
    for folder, value in (("wireshark", "9-9"), ("wireshark/profiles/mine", "1-1")):
        path = home / "config" / folder
        path.mkdir(parents=True)
        (path / "preferences").write_text(
            f"# comment\nextcap.usbip_remote.host: pi\nextcap.usbip_remote.device: {value}\nextcap.x.device: 8-8\n"
        )
    (home / "config/wireshark/extcap.cfg").write_text("#extcap.usbip_remote.device: 7-7\n")
    assert devices(dialog.answer(["--extcap-interface", "usbip-remote"])) == ["auto", "all", "1-1", "9-9"]


def reload(*options: str, interface: str = "usbip-remote") -> list[str]:
    return dialog.answer(
        ["--extcap-config", "--extcap-interface", interface, "--extcap-reload-option", "device", *options]
    )


def test_reload_asks_the_server_and_remembers(home: Path) -> None:
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    try:
        lines = reload("--host", "127.0.0.1", "--port", str(port), "--device", "5-5")
    finally:
        server.close()
    assert all(line.startswith("value ") for line in lines)
    assert devices(lines) == ["auto", "all", "1-1", "5-5"]
    assert "1209:0001" in lines[2]
    assert [device.busid for device in read_cache().devices["127.0.0.1", port]] == ["1-1"]


def test_reload_of_the_demo_is_not_remembered() -> None:
    assert devices(reload("--host", "demo")) == ["auto", "all", "1-1"]
    assert read_cache().servers == {}


def test_reload_says_what_went_wrong_as_an_item_that_does_no_harm() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        lines = reload("--host", "127.0.0.1", "--port", str(port), "--device", "1-1")
    assert devices(lines) == ["auto", "all", "1-1"]
    assert fields(lines[0])["default"] == "true"
    assert "does not answer" in fields(lines[0])["display"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "name first"),
        (["--host", "no-such.invalid"], "not known"),
        (["--host", "a:b:c/"], "a:b:c/"),
        (["--host", "demo", "--port", "junk"], "is not a TCP port"),
        (["--host", "demo", "--port", "99999"], "is not a TCP port"),
    ],
)
def test_reload_without_a_server(options: list[str], words: str) -> None:
    lines = reload(*options)
    assert devices(lines) == ["auto", "all"]
    assert words in lines[0]


def test_other_options_have_nothing_to_reload() -> None:
    asked = ["--extcap-config", "--extcap-interface", "usbip-remote", "--extcap-reload-option", "port"]
    assert dialog.answer(asked) == []
