"""A server is killed, or the network to it is cut, and is there again: the capture reports it and goes on."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.oracles.pcapng_reader import read_capture
from tests.programs.own_network import in_own_network
from tests.programs.serve_command import Serving
from tests.programs.sshd import free_port
from tests.waiting import wait_until
from tests.web.test_captures import echo
from usbip_capture.capture.sinks import FileSink
from usbip_capture.server_stream.capture import StreamedCapture, Wanted
from usbip_capture.servers.dashboards import Dashboard
from usbip_capture.usb.setup import set_configuration
from usbip_capture.usb.urb import TransferType, Urb

PROGRAM = "tests.programs.cut_stream"


@pytest.mark.parametrize(
    "seconds", [pytest.param(0, marks=pytest.mark.slow, id="until noticed"), pytest.param(30, marks=pytest.mark.long)]
)
def test_the_capture_says_so_and_goes_on(seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("config", "cache", "state"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    monkeypatch.setenv("USBIP_CAPTURE_DISCOVERY", "off")
    in_own_network(PROGRAM, str(tmp_path), str(seconds), timeout=300)
    records = list(read_capture(tmp_path / "out.pcapng"))
    texts = [comment for record in records for comment in record.comments]
    (lost,) = [text for text in texts if "it is waited for" in text]
    assert "nothing has come from http://10.213.0.1:" in lost
    (joined,) = [text for text in texts if "is joined again after" in text]
    assert float(joined.split()[-2]) >= seconds - 12  # it is noticed ten seconds later
    (clock,) = {text.rpartition(": ")[0] for text in texts if "by the server's clock" in text}
    assert "aligned to it by the smallest delay seen" in clock
    # Before and after, on the same interface, with each URB once.
    at = [record.comments for record in records].index([joined])
    for part in (records[:at], records[at:]):
        found = [(r.usb.id, r.usb.type) for r in part if r.usb and r.usb.xfer_type == TransferType.BULK]
        assert len(found) == len(set(found)) > 20
    assert {record.interface.name for record in records if record.usb} == {"usbip0"}
    times = [record.timestamp_ns for record in records if record.usb]
    assert times == sorted(times)


def test_a_server_that_is_killed_and_started_again(tmp_path: Path) -> None:
    folder, path, port = tmp_path / "served", tmp_path / "out.pcapng", free_port()
    folder.mkdir()
    arguments = ("--all", "--listen", "127.0.0.1:0", "--web", f"127.0.0.1:{port}", "--no-live")

    def used(serving: Serving) -> None:
        before = capture.urbs
        with closing(serving.attach()) as device:
            assert device.run(Urb.control(set_configuration(1).pack()), 60).status == 0
            echo(device, 5)
            wait_until("it is captured", lambda: capture.urbs >= before + 11)
            serving.process.kill()
            serving.process.wait(60)

    first = Serving(folder, *arguments)
    with closing(first):
        token = first.wait_for(r"shown only once: \S+token=(\S+)")[1]
        at = Dashboard.parse(f"127.0.0.1:{port}", token=token)
        capture = StreamedCapture(at, lambda: FileSink(str(path)), Wanted())
        wait_until("its stream has begun", lambda: path.exists() and b"events0" in path.read_bytes())
        used(first)
    with closing(capture):
        wait_until("it is reported", lambda: b"nothing listens on" in path.read_bytes())
        (folder / "machine").unlink()  # a machine is made by each
        with closing(Serving(folder, *arguments)) as again:
            wait_until("it is back", lambda: b"is joined again after" in path.read_bytes())
            used(again)
    records = list(read_capture(path))
    texts = [comment for record in records for comment in record.comments]
    parts = [part for text in texts for part in ("broken off", "nothing listens on", "is joined again") if part in text]
    assert parts[:3] == ["broken off", "nothing listens on", "is joined again"]
    assert {record.interface.name for record in records} == {"usbip0", "notes0", "events0"}
