"""Mode `server`: what others do at a server with a dashboard, joined by the extcap and by `capture`."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.local_bus import FakeBus
from tests.oracles.pcapng_reader import read_capture
from tests.programs.commands import command_environment, run_line
from tests.programs.extcap_runs import Reader, failing, started
from tests.programs.sshd import free_port, running_sshd
from tests.programs.toolbar_pipes import Window
from tests.waiting import wait_until
from tests.web.dashboards import asking, dashboard
from tests.web.lab import lab
from tests.web.test_captures import bulk, client_of, echo
from usbip_capture.capture.channel import IN_FLIGHT
from usbip_capture.capture.sinks import FileSink
from usbip_capture.device import Device
from usbip_capture.errors import UntrustedServer, UsbipError
from usbip_capture.extcap.controls import ADD, CLIENTS, DROP, ENABLE, LOG, MARK, RESET, SET
from usbip_capture.server_stream.capture import OVER, StreamedCapture, Wanted
from usbip_capture.servers.dashboards import Dashboard
from usbip_capture.sessions.session_capture import DESCRIPTORS
from usbip_capture.tls.known_servers import KnownServer, remember
from usbip_capture.web import dashboard as served
from usbip_capture.web.roles import LOOK, OPERATE

ALL = Wanted()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("config", "cache"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    monkeypatch.setenv("USBIP_CAPTURE_DISCOVERY", "off")
    return tmp_path


def token_of(made: served.Dashboard, role: str = LOOK) -> str:
    return made.side.tokens.add(f"test-{role}", role)


def configure(home: Path, text: str) -> None:
    path = home / "config/usbip-capture/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


@contextmanager
def busy(device: Device) -> Iterator[None]:
    """Transfers on it, until the end of the block."""
    ended = threading.Event()

    def work() -> None:
        try:
            while not ended.wait(0.02):
                echo(device)
        except (UsbipError, AssertionError):
            pass  # it was disconnected

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join(60)


def comments(path: Path) -> list[str]:
    return [comment for record in read_capture(path) for comment in record.comments]


@contextmanager
def joined(made: Dashboard, path: Path, wanted: Wanted = ALL, **options: Any) -> Iterator[StreamedCapture]:
    with closing(StreamedCapture(made, lambda: FileSink(str(path)), wanted, **options)) as capture:
        yield capture


def test_the_extcap_joins_what_a_client_does_and_its_toolbar_works(extcap: Path, home: Path) -> None:
    window, reader = Window(home), Reader(home / "fifo")
    with lab(home / "machine") as found, found.client("1-3") as client:
        url = found.made.urls[0]
        configure(home, f'[dashboards]\nbench = "{url}"\n\n[tokens]\nbench = "{token_of(found.made, OPERATE)}"\n')
        listed = subprocess.run([extcap, "--extcap-interfaces"], capture_output=True, text=True, check=True, timeout=60)
        assert "{value=usbip-server-bench}{display=USB/IP server: bench (http://127.0.0.1:" in listed.stdout
        options = ["--extcap-interface", "usbip-server-bench", *window.options, "--fifo", str(reader.path)]
        with started(extcap, *options) as run:
            window.open()
            wait_until("the client", lambda: any("1-3" in text for text in window.texts(CLIENTS, ADD)))
            wait_until("there are buttons", lambda: window.texts(RESET, ENABLE) == window.texts(DROP, ENABLE) == [""])
            assert reader.some.wait(20)
            window.send(MARK, SET)
            wait_until("the mark", lambda: b"mark 1" in reader.data)
            window.send(RESET, SET)
            wait_until("it was reset", lambda: any("1-3 was reset" in text for text in window.texts(LOG, ADD)))
            window.send(DROP, SET)
            assert client.ended.wait(20)
            wait_until("the list is empty", lambda: any("no client" in text for text in window.texts(CLIENTS, ADD)[1:]))
            run.terminate()
            assert run.wait(60) == 0, run.communicate()
            assert run.communicate()[1] == b""
    window.close()
    (home / "read.pcapng").write_bytes(reader.data)
    records = list(read_capture(home / "read.pcapng"))
    assert set(bulk(records)) == {bytes(512)}
    assert DESCRIPTORS in records[0].comments or IN_FLIGHT in records[0].comments


def test_the_command_filters_at_the_server(home: Path) -> None:
    with dashboard() as (server, made), client_of(server) as device, busy(device):
        line = f"--filter 'bulk and in' --count 8 --snaplen 96 -o {home / 'out.pcapng'} --json"
        done = run_line(
            f"usbip-capture capture --mode server {made.urls[0]} {line}", home, USBIP_CAPTURE_TOKEN=token_of(made)
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["packets"] == 8
    records = list(read_capture(home / "out.pcapng"))
    assert {record.usb.epnum for record in records if record.usb is not None} == {0x84}
    assert {len(data) for data in bulk(records)} == {32}


def test_a_file_is_kept_that_the_server_has_nothing_for(home: Path) -> None:
    path = home / "kept.pcapng"
    path.write_bytes(b"worth something")
    with dashboard() as (_, made):
        line = f"usbip-capture capture --mode server {made.urls[0]} --token wrong -o {path}"
        assert "not known here" in run_line(line, home).stderr
    assert path.read_bytes() == b"worth something"


def test_lines_of_text_without_a_file(home: Path) -> None:
    with dashboard() as (server, made), client_of(server) as device, busy(device):
        environment = {"USBIP_CAPTURE_TOKEN": token_of(made)}
        done = run_line(f"usbip-capture capture --mode server {made.urls[0]} --count 10", home, **environment)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 10


def test_statistics_while_it_happens(home: Path) -> None:
    with dashboard() as (server, made), client_of(server) as device, busy(device):
        environment = {"USBIP_CAPTURE_TOKEN": token_of(made)}
        command = f"usbip-capture stats --live {made.urls[0]} --filter 'bulk and in' --duration 1.2"
        done = run_line(f"{command} --json", home, **environment)
        assert done.returncode == 0, done.stderr
        in_terminal = run_line(f'script -qec "{command}" /dev/null', home, **environment)
    (interface,) = [one for one in json.loads(done.stdout)["interfaces"] if one["devices"]]
    (endpoint,) = interface["devices"][0]["endpoints"]
    assert endpoint["urbs"] > 2
    assert "Ctrl-C stops" in in_terminal.stdout
    assert "URB/s" in in_terminal.stdout
    refused = run_line(f"usbip-capture stats x.pcapng --live {made.urls[0]}", home)
    assert (refused.returncode, "not both" in refused.stderr) == (2, True)


def test_only_chosen_devices_and_what_comes_later(home: Path) -> None:
    bus = FakeBus()
    bus.plug("1-1")
    with dashboard(bus=bus) as (server, made), client_of(server) as first, busy(first):
        at = Dashboard.parse(made.urls[0], token=token_of(made))
        with joined(at, home / "all.pcapng") as both, joined(at, home / "one.pcapng", Wanted(["1-2"])) as one:
            wait_until("it is captured", lambda: both.urbs)
            bus.plug("1-2")
            wait_until("it is exported", lambda: len(server.devices) == 2)
            with client_of(server, "1-2") as second, busy(second):
                wait_until("it is captured", lambda: one.urbs > 4)
                before = both.urbs
                wait_until("both are captured", lambda: both.urbs > before + 8)
    assert busids(home / "all.pcapng") == {"1-1", "1-2"}
    assert busids(home / "one.pcapng") == {"1-2"}
    told = events(home / "all.pcapng")
    assert [text for text in told if "plugged in: 1-2" in text]
    assert [text for text in told if "has imported 1-2" in text]
    assert not [text for text in events(home / "one.pcapng") if "1-1 " in text]


def busids(path: Path) -> set[str]:
    return {record.interface.description.split()[2] for record in read_capture(path) if record.usb is not None}


def events(path: Path) -> list[str]:
    """What the server has reported, in order."""
    found = [record.data for record in read_capture(path) if record.interface.name == "events0"]
    return [data.partition(b">")[2].decode() for data in found]


def test_a_server_that_is_lost_is_waited_for(home: Path) -> None:
    port = free_port()
    web = f"127.0.0.1:{port}"
    with dashboard(web=web) as (server, made):
        at = Dashboard.parse(made.urls[0], token=token_of(made))
        path = home / "out.pcapng"
        with client_of(server) as device, busy(device):
            capture = StreamedCapture(at, lambda: FileSink(str(path)), ALL)
            wait_until("it is captured", lambda: capture.urbs >= 3)
    with closing(capture):
        wait_until("it is reported", lambda: b"nothing listens on" in path.read_bytes())
        with dashboard(web=web) as (server, made), client_of(server) as device, busy(device):
            wait_until("it is back", lambda: b"is joined again after" in path.read_bytes())
            before = capture.urbs
            wait_until("it goes on", lambda: capture.urbs >= before + 6)
    assert any("it is waited for" in comment for comment in comments(path))
    assert {record.interface.name for record in read_capture(path)} == {"usbip0", "notes0", "events0"}


def test_what_was_kept_is_captured_once_also_when_it_is_joined_again(home: Path) -> None:
    path, web = home / "out.pcapng", f"127.0.0.1:{free_port()}"
    with dashboard(web=web, hindsight="10min,4MiB") as (server, made):
        at = Dashboard.parse(made.urls[0], token=token_of(made))
        with client_of(server) as device:
            echo(device, 5)
        wait_until("the client has left", lambda: not server.clients)
        with joined(at, path) as capture:
            wait_until("it has what was kept", lambda: len(bulk(list(read_capture(path)))) == 10)
            capture._connection.shut_down()
            wait_until("it is back", lambda: b"is joined again after" in path.read_bytes())
            with client_of(server) as device:
                before = capture.urbs
                echo(device, 1)
                wait_until("it goes on", lambda: capture.urbs >= before + 3)
    assert len(bulk(list(read_capture(path)))) == 12


def test_without_reconnect_it_ends_with_the_server(home: Path) -> None:
    reasons: list[str] = []
    with dashboard() as (_, made):
        at = Dashboard.parse(made.urls[0], token=token_of(made))
        path = home / "out.pcapng"
        capture = StreamedCapture(at, lambda: FileSink(str(path)), ALL, reconnect=False, on_end=reasons.append)
    wait_until("it has ended", lambda: reasons)
    capture.close()
    assert reasons == [OVER]
    assert "ended the capture" in str(capture.loss) or "broken off" in str(capture.loss)
    assert list(read_capture(path)) == []


def test_a_token_that_is_removed_is_reported_in_the_capture(home: Path) -> None:
    path = home / "out.pcapng"
    with (
        dashboard() as (server, made),
        client_of(server) as device,
        busy(device),
        joined(Dashboard.parse(made.urls[0], token=token_of(made)), path),
    ):
        made.side.tokens.remove("test-look")
        wait_until("it is reported", lambda: b"this token is not known here" in path.read_bytes())


@pytest.mark.parametrize(
    ("where", "words", "status"),
    [
        (["--host", "{url}", "--token", "wrong"], "refuses: this token is not known here", 1),
        (["--host", "{url}"], "no token is known for http://127.0.0.1", 1),
        (["--host", "{usbip}", "--token", "x"], "the dashboard of `usbip-capture serve --web`?", 1),
        (["--host", "127.0.0.1:1", "--token", "x"], "nothing listens on 127.0.0.1 port 1", 1),
        (["--host", "ftp://pi", "--token", "x"], "--host cannot be 'ftp://pi'", 2),
        (["--token", "x"], "no server given", 2),
        (["--host", "{url}", "--token", "x", "--device", "serial=7"], "cannot be chosen at a server", 2),
        (["--host", "{url}", "--token", "a\u00e9b"], "the token has characters", 2),
    ],
)
def test_what_is_wrong_is_a_sentence(where: list[str], words: str, status: int, extcap: Path, home: Path) -> None:
    with dashboard() as (server, made):
        options = [part.format(url=made.urls[0], usbip=server.address) for part in where]
        assert words in failing(extcap, home, "--mode", "server", *options, status=status)


@pytest.mark.parametrize("snaplen", ["63", "x", "-1", "9999999999"])
def test_a_snaplen_that_is_not_one(snaplen: str) -> None:
    with dashboard() as (_, made), asking(made, LOOK) as client:
        answer = client.get("/api/v1/captures/stream", params={"snaplen": snaplen})
        assert (answer.status_code, "snaplen must be" in answer.json()["error"]) == (400, True)
        assert client.get("/api/v1/clients").status_code == 200


def test_tokens_that_others_may_read_are_not_used(home: Path) -> None:
    configure(home, '[dashboards]\nbench = "192.0.2.1"\n[tokens]\nbench = "secret"\n')
    assert Dashboard.parse("bench").token == "secret"
    (home / "config/usbip-capture/config.toml").chmod(0o640)
    with pytest.raises(UsbipError, match="run chmod 600"):
        Dashboard.parse("Bench")


def test_https_is_trusted_as_tls_is(home: Path) -> None:
    with dashboard(web_tls=True, tls="127.0.0.1:0") as (server, made), client_of(server) as device, busy(device):
        at = Dashboard.parse(made.urls[0], token=token_of(made))
        assert at.scheme == "https"
        with pytest.raises(UntrustedServer, match=r"usbip-capture trust tls://127\.0\.0\.1:"):
            at.open_transport()
        assert server.tls is not None
        remember("127.0.0.1", server.tls.addresses[0][1], KnownServer(server.tls.fingerprint))
        with joined(at, home / "out.pcapng") as capture:
            wait_until("it is captured", lambda: capture.urbs >= 5)


def test_by_ssh(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_sshd(home) as sshd, dashboard() as (server, made), client_of(server) as device, busy(device):
        monkeypatch.setenv("PATH", sshd.path)
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        at = Dashboard.parse(f"{sshd.address}/{made.addresses[0][1]}", token=token_of(made))
        with joined(at, home / "out.pcapng") as capture:
            wait_until("it is captured", lambda: capture.urbs >= 5)
            monkeypatch.setenv("PATH", command_environment(home)["PATH"])
