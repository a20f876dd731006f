"""Who has to go when too many strangers talk at a time."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing

from usbip_capture.net.listening import Peer
from usbip_capture.net.transport import SocketTransport
from usbip_capture.serving.conversations import AT_ONCE, Conversations


def test_who_has_a_whole_network_keeps_nobody_else_out() -> None:
    """Of IPv6 that is 64 bits; each of its addresses would be one that has as few as others."""
    conversations, others = Conversations(), []
    with ExitStack() as stack:

        def begin(host: str) -> socket.socket:
            ours, theirs = socket.socketpair()
            transport = stack.enter_context(closing(SocketTransport(ours, host)))
            stack.enter_context(conversations.begun(transport, Peer(host, 1)))
            stack.callback(theirs.close)
            theirs.setblocking(False)
            return theirs

        first = begin("2001:db8:1::5")
        others = [begin(f"2001:db8:2::{number + 1}") for number in range(3 * AT_ONCE)]
        for one in others[: 2 * AT_ONCE + 1]:
            assert one.recv(100) == b'{"error": "busy"}\n'
        for one in (first, *others[2 * AT_ONCE + 1 :]):
            assert is_open(one)


def is_open(sock: socket.socket) -> bool:
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    return False
