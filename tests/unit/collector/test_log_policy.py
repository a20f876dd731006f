"""Who may send logs: a policy is asked about streams and about datagrams."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.waiting import wait_until
from usbip_capture.collector.delivery import Delivery
from usbip_capture.collector.listen_addresses import TCP, UDP, ListenAddress
from usbip_capture.collector.listening import ListeningCollector
from usbip_capture.net.listening import Peer
from usbip_capture.syslog.message import Message

LINE = b"<14>1 - host app - - - hello\n"


@pytest.mark.parametrize("transport", [TCP, UDP])
def test_a_sender_that_is_not_let_in_is_not_heard(transport: str, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Message] = []
    asked: list[Peer] = []

    def policy(peer: Peer) -> str:
        asked.append(peer)
        return "not the first one" if len(asked) == 1 else ""

    collector = ListeningCollector(
        [ListenAddress(transport, "127.0.0.1", 0)], None, Delivery(heard.append, 7, False), policy
    )
    collector.start()
    with contextlib.ExitStack() as stack:
        stack.callback(collector.stop)
        (place,) = collector.bound
        kind = socket.SOCK_DGRAM if transport == UDP else socket.SOCK_STREAM
        for _ in range(2):
            sock = stack.enter_context(socket.socket(socket.AF_INET, kind))
            sock.settimeout(20)
            sock.connect(("127.0.0.1", place.port))
            with contextlib.suppress(OSError):
                sock.sendall(LINE)
            wait_until("it is asked about", lambda: asked and asked[-1].port == sock.getsockname()[1])  # noqa: B023
        wait_until("the second is heard", lambda: len(heard) == 1)
    assert [peer.host for peer in asked] == ["127.0.0.1"] * 2
    assert any(text.endswith("is refused: not the first one") for text in caplog.messages)
