"""`usbip-capture selftest` on good and bad servers."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from tests.fakes.loopback_device import loopback_server
from tests.fakes.scripted_server import ScriptedServer, answer_devlist, answer_import, read_exactly, ret_submit
from tests.oracles.pcapng_reader import read_capture
from usbip_capture.cli.main import main
from usbip_capture.demo.device import DESCRIPTORS, DemoServer
from usbip_capture.errors import ServerLost
from usbip_capture.selftest.raw import RawSession
from usbip_capture.selftest.wire_checks import get_device_descriptor
from usbip_capture.servers.address import ServerAddress
from usbip_capture.wire.structs import USBIP_CMD_SUBMIT


def table(text: str) -> dict[str, tuple[str, str]]:
    """Verdict and detail by check."""
    lines = [line for line in text.splitlines() if line[7:8].strip() and len(line) > 35]
    return {line[7:33].strip(): (line[:5].strip(), line[35:]) for line in lines}


def test_the_demo_does_all_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "selftest.pcapng"
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    assert main(["selftest", "127.0.0.1", "--port", str(port), "--device", "1-1", "--pcap", str(target)]) == 0
    server.close()
    found = table(capsys.readouterr().out)
    assert {verdict for verdict, _ in found.values()} <= {"ok", "-", "note"}
    assert found["UNLINK, pending"] == ("ok", "ECONNRESET (unlinked)")
    assert found["product"] == ("ok", "'Demo device'")
    assert found["missing endpoint"] == ("ok", "ENOENT (unlinked)")
    assert len(list(read_capture(target))) > 100


def test_newlib_numbers_and_a_limit_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    with loopback_server(lambda device: setattr(device, "limit", 4096)) as server:
        assert main(["selftest", f"127.0.0.1:{server.port}"]) == 0
    verdict, detail = table(capsys.readouterr().out)["64 KiB transfers"]
    assert verdict == "note"
    assert "newlib" in detail


def careless(sock: socket.socket) -> None:
    """Answers control requests, echoes the header, reports -1 packets, never answers anything else, nor UNLINK."""
    answer_import(sock)
    while True:
        header = read_exactly(sock, 48)
        command, seqnum, devid, direction, endpoint, _, length = struct.unpack_from(">7I", header)
        if command != USBIP_CMD_SUBMIT or endpoint:
            continue
        data = b""
        if direction:
            answers = {1: DESCRIPTORS.device, 2: DESCRIPTORS.configurations[0], 3: b"\x04\x03x\0", 0: b"\1\0"}
            data = answers.get(header[43], b"")[:length] if header[41] in (0, 6, 8) else b""
            data = b"\1" if header[41] == 8 else data
        reply = bytearray(ret_submit(seqnum, 0, len(data), data))
        struct.pack_into(">3I", reply, 8, devid, direction, endpoint)
        struct.pack_into(">i", reply, 32, -1)
        sock.sendall(reply)


@pytest.mark.slow
def test_a_careless_server_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    scripts = [answer_devlist, answer_devlist, answer_devlist, careless]
    with ScriptedServer(*scripts) as server:
        assert main(["selftest", f"127.0.0.1:{server.port}"]) == 0
    found = table(capsys.readouterr().out)
    assert found["devid, direction, ep"] == ("note", "echoed")
    assert found["number_of_packets"][1].startswith("-1 ")
    assert found["UNLINK, pending"][0] == "note"
    assert found["UNLINK, unknown URB"] == ("note", "no answer")
    assert found["after UNLINK"] == ("ok", "goes on")
    assert found["stall"][0] == "note"


def test_a_server_that_ends_the_connection_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    def fragile(sock: socket.socket) -> None:
        """Good for PyUSB's part; then ends at the first UNLINK."""
        answer_import(sock)
        while True:
            header = read_exactly(sock, 48)
            command, seqnum, _, direction, endpoint, _, length = struct.unpack_from(">7I", header)
            if command != USBIP_CMD_SUBMIT:
                return
            if endpoint:
                sock.sendall(ret_submit(seqnum, -32))
                continue
            answers = {1: DESCRIPTORS.device, 2: DESCRIPTORS.configurations[0]}
            data = b"\1" if header[41] == 8 else answers.get(header[43], b"\1\0")[:length]
            sock.sendall(ret_submit(seqnum, 0, len(data) if direction else 0, data if direction else b""))

    with ScriptedServer(answer_devlist, answer_devlist, answer_devlist, fragile) as server:
        assert main(["selftest", f"127.0.0.1:{server.port}"]) == 1
    found = table(capsys.readouterr().out)
    assert found["the connection"][0] == "WRONG"


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "127.0.0.1", "--port", "1"]) == 1
    assert "nothing listens" in capsys.readouterr().err


def test_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "demo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["server"] == "demo"
    assert found["wrong"] == 0
    assert {check["verdict"] for check in found["checks"]} <= {"right", "note", "skipped"}


def test_a_server_that_drips_has_one_time_out_for_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one for each byte."""
    go_on = threading.Semaphore(0)

    def drip(sock: socket.socket) -> None:
        answer_import(sock)
        read_exactly(sock, 48)
        for byte in ret_submit(1, 0, 18, bytes(18)):
            go_on.acquire(timeout=20)
            sock.sendall(bytes([byte]))

    with ScriptedServer(drip) as server:
        session = RawSession(ServerAddress("127.0.0.1", server.port, 5.0), "1-1")
        now = [100.0]
        real, asked = session._transport.receive_into, []

        def slow(buffer: memoryview, timeout: float) -> int:
            """Each byte takes 4 s."""
            asked.append(timeout)
            now[0] += 4.0
            if timeout < 4.0:
                raise TimeoutError
            go_on.release()
            return real(buffer[:1], 20.0)

        seqnum = session.submit(get_device_descriptor())
        assert seqnum == 1
        monkeypatch.setattr(session._transport, "receive_into", slow)
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        with pytest.raises(ServerLost, match="stopped in the middle of a message"):
            session.reply(5.0)
        assert len(asked) < 5
        session._sent.clear()
        session.close()
