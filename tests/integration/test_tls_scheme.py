"""`tls://` wherever a host is taken: a server of ours within TLS, whose certificate is trusted or is not."""

from __future__ import annotations

import io
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import serial
import usb.core

from tests.fakes.served_by_tls import ServedByTls
from tests.oracles.pcapng_reader import read_capture
from tests.programs.commands import command_environment, run_line
from tests.programs.extcap_launcher import render_launcher
from tests.waiting import wait_until
from usbip_capture.demo.device import BUSID
from usbip_capture.errors import ServerUnreachable, UntrustedServer
from usbip_capture.host.handle import DeviceHandle
from usbip_capture.pyusb_backend import get_backend
from usbip_capture.relay.relay import Relay
from usbip_capture.servers import carried
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.tls import certificates
from usbip_capture.tunnel.service import Tunnel

ALONE = Selector(busid=BUSID)
REQUEST = b"\x01\x11\x80\x05\0\0\0\0"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedByTls]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))  # that of commands, too
    made = ServedByTls()
    with closing(made.server):
        yield made


def test_devices_and_transfers(served: ServedByTls) -> None:
    backend = get_backend(served.where)
    found = usb.core.find(backend=backend, idVendor=0x1209)
    assert found.serial_number == "DEMO0001"
    assert served.users == [BUSID]
    backend.close()
    wait_until("the device is free", lambda: not served.users)


def test_commands(served: ServedByTls, tmp_path: Path) -> None:
    listed = run_line(f"usbip-capture list {served.where}", tmp_path)
    assert listed.stdout.startswith(f"{served.where}:\n  {BUSID}  1209:0001"), listed.stderr
    added = run_line(f"usbip-capture config add safe {served.where} && usbip-capture list safe --json", tmp_path)
    (entry,) = json.loads(added.stdout[added.stdout.index("\n[") :])
    assert (entry["server"], entry["name"], entry["port"]) == (served.where, "safe", served.port)
    captured = run_line(f"usbip-capture capture safe {BUSID} --count 20 --duration 60 -o capture.pcapng", tmp_path)
    assert captured.returncode == 0, captured.stderr
    assert len(list(read_capture(tmp_path / "capture.pcapng"))) > 10
    tried = run_line("usbip-capture selftest safe", tmp_path)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    (tmp_path / "program.py").write_text("import usb.core; print(usb.core.find(idVendor=0x1209).product)")
    used = run_line("usbip-capture use safe -- program.py", tmp_path)
    assert used.stdout == "Demo device\n", used.stderr
    known = run_line("usbip-capture completion bash >/dev/null; usbip-capture list", tmp_path)
    assert f"safe ({served.where}):" in known.stdout, known.stderr


def test_a_serial_port(served: ServedByTls, tmp_path: Path) -> None:
    ports = run_line(f"usbip-capture ports {served.where}", tmp_path)
    url = ports.stdout.split()[0]
    assert url.startswith(f"usbip://127.0.0.1:{served.port}/{BUSID}?via=tls")
    with serial.serial_for_url(url, timeout=5) as port:
        port.write(b"hello")
        assert port.read(5) == b"hello"


def test_the_extcap(served: ServedByTls, tmp_path: Path) -> None:
    extcap = str(render_launcher(tmp_path / "extcap"))
    environment = command_environment(tmp_path, USBIP_CAPTURE_SERVERS=f"safe={served.where}")

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([extcap, *arguments], env=environment, capture_output=True, text=True, check=False)

    assert f"{{value=usbip-safe}}{{display=USB/IP remote: safe ({served.where})}}" in ask("--extcap-interfaces").stdout
    reload = ["--extcap-config", "--extcap-interface", "usbip-safe", "--extcap-reload-option", "device"]
    assert f"{{value={BUSID}}}" in ask(*reload).stdout
    captured = tmp_path / "capture.pcapng"
    for options in (["--extcap-interface", "usbip-safe"], ["--host", served.where]):
        done = ask("--capture", *options, "--count", "20", "--duration", "60", "--fifo", str(captured))
        assert done.returncode == 0, done.stderr
        assert len(list(read_capture(captured))) > 10

    served.trust("")
    fingerprint = served.context.fingerprint
    refused = ask("--capture", "--host", served.where, "--count", "20", "--duration", "60", "--fifo", str(captured))
    assert f"usbip-capture trust {served.where} {fingerprint}" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert fingerprint in ask(*reload).stdout


def test_relay_and_tunnel(served: ServedByTls) -> None:
    server = ServerAddress.parse(served.where)
    for between in (Relay(server, port=0), Tunnel(server, port=0)):
        with closing(between):
            near = ServerAddress("127.0.0.1", between.port)
            with closing(near.import_device(ALONE)) as device:
                assert DeviceHandle(device).device_descriptor().idVendor == 0x1209
                assert served.users == [BUSID]
            wait_until("the device is free", lambda: not served.users)


def test_who_has_the_socket_of_a_connection(served: ServedByTls) -> None:
    """As a kernel has it: a tunnel of its own carries the bytes until it is closed."""
    sock, info = ServerAddress.parse(served.where).import_socket(ALONE)
    with sock:
        assert info.busid == BUSID
        assert served.users == [BUSID]
    wait_until("the device is free", lambda: not served.users)


def test_what_a_tunnel_of_its_own_reports(served: ServedByTls, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is another process, whose sentence is ours."""
    monkeypatch.setattr(carried, "open_transport", lambda server: io.BytesIO())
    served.trust("")
    with pytest.raises(ServerUnreachable, match=f"^{served.where} is not known yet: "):
        ServerAddress.parse(served.where).import_socket(ALONE)


def test_a_server_that_is_not_trusted(served: ServedByTls, tmp_path: Path) -> None:
    """By none of the ways, and nobody is asked; what to do is in the sentence."""
    server = ServerAddress.parse(served.where)
    for known in ("", certificates.fingerprint(b"another")):
        served.trust(known)
        with pytest.raises(UntrustedServer, match="usbip-capture trust"):
            server.devices()
        with pytest.raises(UntrustedServer, match="usbip-capture trust"):
            server.import_socket(ALONE)
        for line in (f"list {served.where}", f"tunnel {served.where} --stdio", f"tunnel {served.where} --listen :0"):
            done = run_line(f"usbip-capture {line} </dev/null", tmp_path)
            assert done.returncode
            assert f"usbip-capture trust {served.where} {served.context.fingerprint}" in done.stderr
            assert done.stderr.count("\n") == 1
            assert known in done.stderr
    assert served.server.clients == []


def test_the_tunnel_is_refused_when_the_certificate_changes(
    served: ServedByTls, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Tunnel(ServerAddress.parse(served.where), port=0)) as tunnel:
        near = ServerAddress("127.0.0.1", tunnel.port)
        assert near.devices()
        served.trust("")
        with socket.create_connection(("127.0.0.1", tunnel.port)) as client:
            client.sendall(REQUEST)
            with pytest.raises(ConnectionResetError):
                client.recv(100)
        assert "is not known yet" in caplog.text
