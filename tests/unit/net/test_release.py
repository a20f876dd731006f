"""A socket that a transport has released is as the kernel wants it: blocking, without limits of ours."""

from __future__ import annotations

import socket

import pytest

from usbip_capture.net import transport
from usbip_capture.net.transport import SocketTransport


@pytest.mark.parametrize("of_the_kernel", [True, False], ids=["time-outs of the kernel", "time-outs of Python"])
def test_a_released_socket(of_the_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if of_the_kernel and not transport._KERNEL_TIMEOUTS:
        pytest.skip("this kernel has none")
    monkeypatch.setattr(transport, "_KERNEL_TIMEOUTS", of_the_kernel)
    ours, theirs = socket.socketpair()
    with theirs:
        carrier = SocketTransport(ours, "a peer")
        theirs.sendall(b"before")
        buffer = memoryview(bytearray(6))
        assert carrier.receive_into(buffer, 20.0) == 6
        released = carrier.release()
        with released:
            assert released is ours
            assert released.getblocking()
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                assert not any(released.getsockopt(socket.SOL_SOCKET, option, 64))
            theirs.sendall(b"after")
            assert released.recv(5) == b"after"
        assert theirs.recv(1) == b""  # no other descriptor keeps it open
