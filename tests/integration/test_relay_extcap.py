"""Mode `relay` of the extcap as a process: started by a capture, outliving it, joined by the next; the toolbar."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import usb.core

from tests.oracles.pcapng_reader import read_capture
from tests.programs.extcap_runs import Reader, assert_complete, assert_sentence, failing, started
from tests.programs.toolbar_pipes import Window
from tests.waiting import wait_until
from usbip_capture import get_backend
from usbip_capture.cli.main import main
from usbip_capture.demo.device import DemoServer
from usbip_capture.extcap.controls import (
    ADD,
    CLIENTS,
    DEVICE,
    DISABLE,
    DROP,
    ENABLE,
    INITIALIZED,
    LOG,
    REMOVE,
    SET,
    STATUSBAR,
)
from usbip_capture.live import registry
from usbip_capture.relay.captures import DESCRIPTORS


@pytest.fixture
def relay_options() -> Iterator[list[str]]:
    """To relay to a server on this machine; the relays are ended."""
    with closing(DemoServer()) as demo:
        host, port = demo.listen("127.0.0.1", 0)
        yield ["--mode", "relay", "--host", host, "--port", str(port), "--relay-listen", "127.0.0.1:0"]
        if registry.running():
            assert main(["relay", "--stop"]) == 0


def relay_port() -> int:
    (entry,) = wait_until("a relay is listed", registry.running)
    return int(entry.listen.rpartition(":")[2])


def use(port: int) -> tuple[object, usb.core.Device]:
    backend = get_backend("127.0.0.1", port)
    device = usb.core.find(backend=backend)
    assert isinstance(device, usb.core.Device)
    read_descriptor(device)
    return backend, device


def read_descriptor(device: usb.core.Device) -> None:
    assert device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)


def fails(device: usb.core.Device) -> bool:
    try:
        read_descriptor(device)
    except usb.core.USBError:
        return True
    return False


def test_a_capture_ends_and_the_next_one_joins(extcap: Path, relay_options: list[str], tmp_path: Path) -> None:
    reader = Reader(tmp_path / "fifo")
    with started(extcap, *relay_options, "--fifo", str(reader.path)) as process:
        port = relay_port()
        backend, device = use(port)
        wait_until("packets", lambda: len(reader.data) > 500)
        process.terminate()
        assert process.wait(20) == 0
        assert process.communicate()[1] == b""
    assert reader.ended.wait(10)
    assert assert_complete(reader.data, tmp_path) > 4
    read_descriptor(device)  # nobody has cut it off
    (entry,) = registry.running()
    listed = subprocess.run([str(extcap), "--extcap-interfaces"], capture_output=True, text=True, check=True).stdout
    assert f"interface {{value={entry.name}}}{{display=USB/IP relay: 127.0.0.1:" in listed
    target = tmp_path / "second.pcapng"
    with started(extcap, "--extcap-interface", entry.name, "--fifo", str(target), "--count", "20") as process:
        while process.poll() is None:
            read_descriptor(device)
        assert process.communicate()[1] == b""
    records = list(read_capture(target))
    assert len(records) == 20
    assert DESCRIPTORS in records[0].comments
    assert "attach with: usbip --tcp-port" in (records[0].interface.description or "")
    backend.close()  # type: ignore[attr-defined]
    wait_until("it ends with its last client", lambda: not registry.running())


def test_the_toolbar_shows_clients_and_drops_one(extcap: Path, relay_options: list[str], tmp_path: Path) -> None:
    window = Window(tmp_path)
    target = tmp_path / "out.pcapng"
    with started(extcap, *relay_options, *window.options, "--fifo", str(target)) as process:
        window.open()
        window.send(0, INITIALIZED)
        port = relay_port()
        hint = f"attach with: usbip --tcp-port {port} attach -r 127.0.0.1 -b 1-1"
        wait_until("the status line", lambda: hint in window.texts(0, STATUSBAR))
        wait_until("the state", lambda: "relay: nobody is connected" in window.texts(DEVICE, SET))
        wait_until("the button", lambda: window.texts(CLIENTS, ENABLE) == window.texts(DROP, ENABLE) == [""])
        backend, device = use(port)
        read_descriptor(device)
        pattern = re.compile(r"\d+\x001-1 \(1209:0001\) 127\.0\.0\.1:\d+")
        wait_until("the client", lambda: any(pattern.fullmatch(text) for text in window.texts(CLIENTS, ADD)))
        wait_until("counters", lambda: any("URBs" in text for text in window.texts(0, STATUSBAR)))
        assert window.texts(CLIENTS, REMOVE)
        window.send(DROP, SET)
        wait_until("it is broken off", lambda: fails(device))
        wait_until("the log", lambda: any("dropping client" in text for text in window.texts(LOG, ADD)))
        wait_until("nobody", lambda: window.texts(CLIENTS, ADD)[-1] == "0\0(no client)")
        window.send(DROP, SET)
        wait_until("a word", lambda: any("choose a client" in text for text in window.texts(0, STATUSBAR)))
        window.raw(b"Q\0\0\0")
        assert process.wait(20) == 0
        assert process.communicate()[1] == b""
        backend.close()  # type: ignore[attr-defined]
    window.close()
    assert len(list(read_capture(target))) > 2


def test_in_other_modes_there_is_nobody_to_drop(extcap: Path, tmp_path: Path) -> None:
    window = Window(tmp_path)
    with started(extcap, "--host", "demo", *window.options, "--fifo", str(tmp_path / "x.pcapng")) as process:
        window.open()
        wait_until("disabled", lambda: window.texts(CLIENTS, DISABLE) and window.texts(DROP, DISABLE))
        process.terminate()
        process.wait(20)
    window.close()


def test_a_busy_port_is_a_sentence_and_a_valid_capture(extcap: Path, relay_options: list[str], tmp_path: Path) -> None:
    port = relay_options[relay_options.index("--port") + 1]
    output = failing(extcap, tmp_path, *relay_options, "--relay-listen", f"127.0.0.1:{port}")
    assert_sentence(output, "the port is in use: choose another port")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--relay-listen", "0.0.0.0:0"], "no authentication"),
        (["--relay-listen", "0.0.0.0:0", "--relay-allow", "x"], "'x' is not a client"),
        (["--relay-listen", "here"], "an address and a port"),
        (["--syslog", "connect"], "not captured in mode relay"),
        (["--extcap-capture-filter", "epp"], "capture filter"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    extcap: Path, relay_options: list[str], tmp_path: Path, option: list[str], words: str
) -> None:
    assert_sentence(failing(extcap, tmp_path, *relay_options, *option, status=2), words)
    assert registry.running() == []


def test_a_relay_that_ends_ends_its_captures_with_a_sentence(
    extcap: Path, relay_options: list[str], tmp_path: Path
) -> None:
    target = tmp_path / "out.pcapng"
    with started(extcap, *relay_options, "--fifo", str(target)) as process:
        backend, _ = use(relay_port())
        wait_until("packets", lambda: target.exists() and target.stat().st_size > 500)
        assert main(["relay", "--stop"]) == 0
        assert process.wait(20) == 1
        assert_sentence(process.communicate()[1].decode(), "the relay has ended")
        backend.close()  # type: ignore[attr-defined]
    assert_complete(target.read_bytes(), tmp_path)


def test_a_relay_on_another_servers_port_is_named(extcap: Path, relay_options: list[str], tmp_path: Path) -> None:
    with started(extcap, *relay_options, "--fifo", str(tmp_path / "one.pcapng")):
        port = relay_port()
        output = failing(
            extcap, tmp_path, "--mode", "relay", "--host", "192.0.2.1", "--relay-listen", f"127.0.0.1:{port}"
        )
        assert_sentence(output, "listens there already", "--stop")


def test_the_query_imports_nothing_that_is_heavy(extcap: Path, relay_options: list[str], tmp_path: Path) -> None:
    with started(extcap, *relay_options, "--fifo", str(tmp_path / "one.pcapng")):
        relay_port()
        code = (
            "import sys; sys.argv = ['x', '--extcap-interfaces']; from usbip_capture.extcap.main import main; main();"
            "print(sorted(m for m in sys.modules if m.split('.')[0] in ('json', 'socket', 'threading', 'logging', 're',"
            " 'pcapng', 'ipaddress', 'argparse')), file=sys.stderr)"
        )
        root = Path(__file__).parents[2]
        code = f"import sys; sys.path.insert(0, {str(root)!r}); {code}"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
        )
        assert "USB/IP relay" in done.stdout
        assert done.stderr == "[]\n"
