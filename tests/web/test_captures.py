"""Captures through the dashboard's interfaces, of clients that do real transfers; tshark reads each."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.local_bus import FakeBus
from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from tests.waiting import wait_until
from tests.web.dashboards import asking, dashboard
from tests.web.websocket import Refused, WebSocket, websocket
from usbip_capture import LocalServer
from usbip_capture.demo.device import BULK_IN, BULK_OUT
from usbip_capture.device import Device
from usbip_capture.errors import CaptureError
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.serving.session_capture import DESCRIPTORS
from usbip_capture.usb.setup import set_configuration
from usbip_capture.usb.urb import TransferType, Urb
from usbip_capture.web.api import captures
from usbip_capture.web.dashboard import Dashboard
from usbip_capture.web.live_rows import MAX_WAITING
from usbip_capture.web.roles import LOOK, OPERATE

CAPTURES = "/api/v1/captures"
TSHARK = shutil.which("tshark")


@contextmanager
def client_of(server: LocalServer, busid: str = "1-1") -> Iterator[Device]:
    """A client that has the device, and has configured it."""
    device = ServerAddress.parse(server.address, timeout=60.0).import_device(Selector(busid))
    try:
        assert device.run(Urb.control(set_configuration(1).pack()), 60).status == 0
        yield device
    finally:
        device.close()


def echo(device: Device, times: int = 1) -> None:
    """Two URBs, which are four packets, each time."""
    for number in range(times):
        data = bytes([number % 256]) * 64
        device.run(Urb(TransferType.BULK, BULK_OUT, 64, data), 60)
        assert device.run(Urb(TransferType.BULK, BULK_IN, 64), 60).data == data


def bulk(records: list[CapturedRecord]) -> list[bytes]:
    """What came and went, in order."""
    found = [record.usb for record in records if record.usb is not None]
    return [usb.data for usb in found if usb.xfer_type == TransferType.BULK and usb.data]


def read(data: bytes, folder: Path) -> list[CapturedRecord]:
    path = folder / "read.pcapng"
    path.write_bytes(data)
    records = list(read_capture(path))
    if TSHARK:
        command = [TSHARK, "-r", str(path), "-T", "fields", "-e", "frame.number"]
        done = subprocess.run(command, check=True, capture_output=True, timeout=120)
        assert len(done.stdout.split()) == len(records)
    return records


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    return {"captures": tmp_path / "captures"}


def start(client: httpx.Client, **body: object) -> dict[str, Any]:
    answer = client.post(CAPTURES, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outcome"].endswith("has begun")
    return answer.json()["capture"]  # type: ignore[no-any-return]


def test_a_capture_is_begun_read_while_it_runs_stopped_and_deleted(given: dict[str, Any], tmp_path: Path) -> None:
    with dashboard(**given) as (server, made), asking(made) as client, client_of(server) as device:
        echo(device, 3)
        capture = start(client, devices=["1-1"], name="The board's <b>boot</b>")
        assert (capture["state"], capture["devices"], capture["by"]) == ("running", ["1-1"], "web:test-administer")
        echo(device, 5)
        url = f"{CAPTURES}/{capture['id']}"
        first = client.get(f"{url}/download")
        assert first.headers["content-type"] == "application/x-pcapng"
        name = f"The-board-s-b-boot-b-{capture['id']}.pcapng"
        assert first.headers["content-disposition"] == f'attachment; filename="{name}"'
        records = read(first.content, tmp_path)
        assert len(bulk(records)) == 10
        assert DESCRIPTORS in records[0].comments
        echo(device, 2)
        answer = client.post(f"{url}/stop").json()
        assert answer["outcome"].startswith("The board's <b>boot</b> is stopped: ")
        echo(device, 2)
        whole = client.get(f"{url}/download").content
        assert whole.startswith(first.content)
        records = read(whole, tmp_path)
        assert len(bulk(records)) == 14
        (listed,) = client.get(CAPTURES).json()["captures"]
        assert (listed["state"], listed["packets"], listed["bytes"]) == ("stopped", len(records), len(whole))
        assert f"{url}/download" in listed["command"]
        assert client.post(f"{url}/stop").status_code == 409
        assert client.get(f"{url}/download?part=2").status_code == 404
        assert client.get(f"{url}/download?part=1").content == whole
        assert client.delete(url).json() == {"ok": True, "outcome": "The board's <b>boot</b> is deleted"}
        for gone in (client.delete(url), client.get(f"{url}/download"), client.post(f"{url}/stop")):
            assert (gone.status_code, gone.json()["ok"]) == (404, False)
        assert client.get(CAPTURES).json() == {"captures": []}


def test_a_ring_is_downloaded_whole_or_in_parts(given: dict[str, Any], tmp_path: Path) -> None:
    with dashboard(**given) as (server, made), asking(made) as client, client_of(server) as device:
        capture = start(client, max_bytes=6000, files=3)
        echo(device, 60)
        url = f"{CAPTURES}/{capture['id']}"
        client.post(f"{url}/stop")
        (listed,) = client.get(CAPTURES).json()["captures"]
        assert (listed["files"], listed["ring"]) == (3, 3)
        parts = [client.get(f"{url}/download?part={number}").content for number in (1, 2, 3)]
        whole = client.get(f"{url}/download").content
        assert whole == b"".join(parts)
        assert all(part[:4] == whole[:4] and len(part) > 1000 for part in parts)
        assert bulk(read(whole, tmp_path))[-1] == bytes([59]) * 64


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"devices": "1-1"}, "must be a list"),
        ({"devices": ["/etc/passwd"]}, "is not a device"),
        ({"devices": ["1-1"] * 300}, "at most 256"),
        ({"filter": "bulk and and"}, "filter"),
        ({"filter": " " * 5000}, "too long"),
        ({"max_bytes": -1}, "whole number"),
        ({"files": 5}, "size limit"),
        ({"name": 5}, "must be text"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(body: dict[str, Any], why: str, given: dict[str, Any]) -> None:
    with dashboard(**given) as (_, made), asking(made) as client:
        answer = client.post(CAPTURES, json=body)
        assert answer.status_code == 400
        assert why in answer.json()["error"]


def test_who_only_looks_begins_and_ends_none(given: dict[str, Any]) -> None:
    with dashboard(**given) as (_, made), asking(made, LOOK) as looks, asking(made, OPERATE) as operates:
        capture = start(operates)
        url = f"{CAPTURES}/{capture['id']}"
        for refused in (looks.post(CAPTURES, json={}), looks.post(f"{url}/stop"), looks.delete(url)):
            assert refused.status_code == 403
        assert looks.get(f"{url}/download").status_code == 200
        assert operates.delete(url).status_code == 200


def test_a_stream_has_what_came_before_and_ends_with_its_client(given: dict[str, Any], tmp_path: Path) -> None:
    bus = FakeBus()
    bus.plug("1-1")
    bus.plug("1-2")
    with dashboard(bus=bus, **given) as (server, made), asking(made, LOOK) as client:
        with client_of(server) as device, client_of(server, "1-2") as other:
            echo(device, 3)
            got = bytearray()
            query = {"device": "1-1", "filter": "bulk or descriptors"}
            with client.stream("GET", f"{CAPTURES}/stream", params=query) as answer:
                assert answer.headers["content-type"] == "application/x-pcapng"
                parts = answer.iter_bytes()
                wait_until("it is seen", lambda: made.side.streams.taken)
                got += next(parts)
                while DESCRIPTORS.encode() not in got:
                    got += next(parts)
                echo(device, 4)
                echo(other, 4)
                while got.count(bytes([3]) * 64) < 2:
                    got += next(parts)
            wait_until("it has ended", lambda: not made.side.streams.taken)
            echo(device, 4)
        records = read(bytes(got), tmp_path)
        assert bulk(records) == [bytes([number]) * 64 for number in range(4) for _ in range(2)]


def test_a_stream_that_nobody_reads_holds_up_nobody(given: dict[str, Any]) -> None:
    large = bytes(range(256)) * 256
    with dashboard(**given) as (server, made), asking(made, LOOK) as client, client_of(server) as device:
        with client.stream("GET", f"{CAPTURES}/stream"):
            wait_until("it is seen", lambda: made.side.streams.taken)
            for _ in range(100):
                device.run(Urb(TransferType.BULK, BULK_OUT, len(large), large), 60)
                assert device.run(Urb(TransferType.BULK, BULK_IN, len(large)), 60).data == large
        wait_until("it has ended", lambda: not made.side.streams.taken)
        echo(device)


def test_streams_are_refused_before_they_begin(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with dashboard(**given) as (_, made), asking(made, LOOK) as client:
        for query in ("filter=bulk%20and", "device=x%2fy"):
            assert client.get(f"{CAPTURES}/stream?{query}").status_code == 400
        monkeypatch.setattr(captures, "MAX_STREAMS", 0)
        assert client.get(f"{CAPTURES}/stream").status_code == 409


def test_a_server_that_ends_ends_streams_and_captures(given: dict[str, Any], tmp_path: Path) -> None:
    with dashboard(**given) as (server, made), asking(made) as client:
        capture = start(client)
        with client_of(server) as device:
            echo(device, 2)
        with look(made, capture["id"]) as socket, client.stream("GET", f"{CAPTURES}/stream") as answer:
            ended = threading.Event()
            assert socket.receive() == {"filter": ""}

            def drains() -> None:
                try:
                    for _ in answer.iter_bytes():
                        pass
                except httpx.TransportError:
                    pass
                ended.set()

            thread = threading.Thread(target=drains)
            thread.start()
            server.close()
            assert ended.wait(60)
            thread.join()
            assert socket.receive() in (None, {"ended": True})
    (path,) = (tmp_path / "captures").glob(f"{capture['id']}*.pcapng")
    assert len(bulk(list(read_capture(path)))) == 4
    with dashboard(**given) as (_, made), asking(made) as client:
        (listed,) = client.get(CAPTURES).json()["captures"]
        assert (listed["id"], listed["state"]) == (capture["id"], "stopped")


def test_a_server_that_cannot_start_leaves_the_folder_to_the_next(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CaptureError), dashboard(pcap=tmp_path / "no folder" / "x.pcapng", **given):
        pass
    with dashboard(**given) as (server, _):
        assert server.captures is not None
        assert server.captures.captures == []
        with pytest.raises(CaptureError, match="another program"), dashboard(**given):
            pass


def test_a_server_without_a_folder_for_them_serves_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a file"))
    with dashboard() as (server, made), asking(made) as client, client_of(server) as device:
        assert client.get(CAPTURES).status_code == 501
        assert "name a folder" in client.post(CAPTURES, json={}).json()["error"]
        with client.stream("GET", f"{CAPTURES}/stream") as answer:
            assert next(answer.iter_bytes())
        echo(device)


def test_pages_learn_that_a_capture_has_begun_grown_and_gone(given: dict[str, Any]) -> None:
    def until(condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        message: dict[str, Any]
        while not condition(message := socket.receive()):
            pass
        return message

    with dashboard(**given) as (server, made), asking(made) as client, client_of(server) as device:
        token = made.side.tokens.add("test-figures", LOOK)
        with websocket(made.urls[0], "/api/v1/figures", token) as socket:
            before = until(lambda message: message["type"] == "figures")
            assert before["captures"] == {}
            capture = start(client)
            begun = until(lambda message: bool(message["captures"]))
            assert begun["changed"] > before["changed"]
            echo(device, 5)
            grown = until(lambda message: message["captures"][capture["id"]]["packets"] >= 20)
            assert grown["captures"][capture["id"]]["dropped"] == 0
            (shown,) = client.get("/api/v1/overview").json()["captures"]
            assert (shown["id"], "/captures/stream" in shown["command"]) == (capture["id"], True)
            client.post(f"{CAPTURES}/{capture['id']}/stop")
            ended = until(lambda message: not message["captures"])
            assert ended["changed"] > grown["changed"]
            client.delete(f"{CAPTURES}/{capture['id']}")
            until(lambda message: message["changed"] > ended["changed"])


# -- looking into one


def look(made: Dashboard, capture_id: str, query: str = "") -> Any:
    name = "test-live"
    if made.side.tokens.named(name) is not None:
        made.side.tokens.remove(name)
    token = made.side.tokens.add(name, LOOK)
    return websocket(made.urls[0], f"{CAPTURES}/{capture_id}/live{query}", token)


def rows_of(socket: WebSocket, wanted: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while len(rows) < wanted:
        message = socket.receive()
        assert message is not None
        rows += message.get("rows", [])
    return rows


def ready(server: LocalServer) -> None:
    """The view has joined: nothing of what is done now is missed."""
    sessions = server.sessions
    assert sessions is not None
    wait_until("the view has joined", lambda: len(sessions._watchers) > 1)


def test_rows_of_a_running_capture_with_a_filter_and_a_pause(given: dict[str, Any]) -> None:
    with dashboard(**given) as (server, made), asking(made) as client, client_of(server) as device:
        capture = start(client, filter="bulk")
        with look(made, capture["id"], "?filter=in") as socket:
            assert socket.receive() == {"filter": "in"}
            ready(server)
            echo(device, 2)
            first, second, *_ = rows = rows_of(socket, 4)
            assert [row["event"] for row in rows] == ["S", "C", "S", "C"]
            assert (first["device"], first["type"], first["endpoint"]) == ("1-1", "bulk", BULK_IN)
            assert first["client"].startswith("127.0.0.1:")
            assert (first["status"], second["status"], second["status_name"]) == (-115, 0, "success")
            assert (second["length"], second["data"]) == (64, "00" * 32)
            assert [row["number"] for row in rows] == [1, 2, 3, 4]
            assert second["time"] >= first["time"] > 1.6e9
            socket.send({"filter": "bulk and and"})
            assert "filter" in socket.receive()["error"]
            socket.send({"filter": "length > 64 or status != 0"})
            assert socket.receive() == {"filter": "length > 64 or status != 0"}
            echo(device)
            data = bytes(100)
            device.run(Urb(TransferType.BULK, BULK_OUT, 100, data), 60)
            assert [row["length"] for row in rows_of(socket, 2)] == [100, 100]
            socket.send({"pause": True})
            socket.send("")
            assert "send" in socket.receive()["error"]  # so that it is paused now
            device.run(Urb(TransferType.BULK, BULK_IN, 100), 60)
            socket.send({"pause": False, "filter": "in"})
            assert socket.receive() == {"filter": "in"}
            echo(device)
            assert len(rows_of(socket, 2)) == 2
            client.post(f"{CAPTURES}/{capture['id']}/stop")
            assert socket.receive() == {"ended": True}
            assert socket.receive() is None
        with look(made, capture["id"]) as socket:
            assert "does not run" in socket.receive()["error"]


def test_a_browser_that_does_not_read_misses_rows_and_holds_up_nobody(given: dict[str, Any]) -> None:
    with dashboard(**given) as (server, made), asking(made) as client, client_of(server) as device:
        capture = start(client)
        with look(made, capture["id"]) as socket:
            ready(server)
            seen, missed, done = 0, 0, 0
            while not missed:
                echo(device, MAX_WAITING)
                done += 4 * MAX_WAITING
                while seen + missed < done:
                    message = socket.receive()
                    seen += len(message.get("rows", []))
                    missed += message.get("missed", 0)
            assert seen + missed == done
        wait_until("it has left", lambda: not made.side.views.taken)
        facts = client.post(f"{CAPTURES}/{capture['id']}/stop").json()["capture"]
        assert facts["dropped"] == 0


def test_who_has_no_token_does_not_look(given: dict[str, Any]) -> None:
    with dashboard(**given) as (_, made), asking(made) as client:
        capture = start(client)
        with (
            pytest.raises(Refused, match="401"),
            websocket(made.urls[0], f"{CAPTURES}/{capture['id']}/live", "nothing"),
        ):
            pass
