"""`demo_log`: what its clients get, and clients that do not read."""

from __future__ import annotations

import contextlib
import socket

from tests.waiting import wait_until
from usbip_capture.demo.log import MAX_CLIENTS, DemoLog
from usbip_capture.syslog.framing import Framer
from usbip_capture.syslog.message import MessageParser


def test_framed_as_esp32_bridges_do() -> None:
    log = DemoLog()
    with log.connect() as client:
        log.write("W", "usb", "text")
        data = client.recv(4096)
    count, _, message = data.partition(b" ")
    assert int(count) == len(message)
    assert message.endswith(b"\n")
    ((frame, flaw),) = Framer().feed(data)
    parsed = MessageParser("x").parse(frame, 0, flaw)
    assert (parsed.severity, parsed.app_name, parsed.hostname, parsed.flaw) == (4, "usb", "demo", "")
    assert parsed.timestamp.startswith("2000-01-01T00:00:")
    assert parsed.text.endswith(" usb: text")
    log.close()


def test_a_client_that_does_not_read_loses_lines_and_gets_whole_ones() -> None:
    log = DemoLog()
    with log.connect() as client:
        for number in range(20_000):
            log.write("I", "flood", f"{number} " + "x" * 100)
        framer, frames = Framer(), 0
        client.setblocking(False)
        for _ in range(100):
            log.write("I", "flood", "further")
            with contextlib.suppress(BlockingIOError):
                frames += sum(not flaw for _, flaw in framer.feed(client.recv(1 << 20)))
        assert 100 < frames < 20_000
        assert (framer.wrong_counts, framer.too_long) == (0, 0)
    log.close()


def test_clients_come_and_go() -> None:
    log = DemoLog()
    _, port = log.listen("127.0.0.1", 0)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(MAX_CLIENTS + 1)]
    for client in clients:
        client.settimeout(20)
    assert clients[-1].recv(1) == b""  # one too many
    log.write("I", "a", "b")
    assert all(client.recv(100) for client in clients[:-1])
    clients[0].close()

    def noticed() -> bool:
        log.write("I", "a", "b")
        return len(log._clients) == MAX_CLIENTS - 1

    wait_until("it is noticed", noticed)
    log.close()
    for client in clients[1:]:
        client.close()
