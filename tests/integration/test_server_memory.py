"""What a server needs for a device by libusb is bounded, whatever a client sends, and whatever it does not read."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fakes.raw_client import RawClient
from tests.programs.commands import ROOT
from tests.waiting import wait_until
from usbip_capture.demo.device import BULK_IN, BULK_OUT, BUSID, INFO
from usbip_capture.wire import structs
from usbip_capture.wire.server import MAX_PENDING

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc, of Linux")

#: Bytes: what is pending, what waits for the client to read it, and what the interpreter needs besides.
BOUND = MAX_PENDING + (64 << 20)
#: Of one client after the other, whose memory must not add up.
ROUNDS = 3
GIGABYTE = 1 << 30
#: Seconds without anything that shows that a server waits for its client.
_TAKES_NO_MORE = 1.0


class Lending:
    """The server, in a process of its own."""

    def __init__(self, kind: str) -> None:
        command = [sys.executable, "-m", "tests.programs.lending_server", kind]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = ("127.0.0.1", int(self.process.stdout.readline()))
        self.before = self.peak()

    def peak(self) -> int:
        """Bytes that it had at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10

    def is_bounded(self) -> None:
        """The next client gets the device, and the server never grew beyond what is allowed."""
        wait_until("the device is free", self._is_lent)
        assert self.peak() - self.before < BOUND

    def _is_lent(self) -> bool:
        with RawClient(self.address, BUSID) as client:
            return not client.status and client.ask("8006000100001200").actual_length == 18

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def stuck() -> Iterator[Lending]:
    lending = Lending("stuck")
    yield lending
    lending.close()


@pytest.fixture
def ready() -> Iterator[Lending]:
    lending = Lending("ready")
    yield lending
    lending.close()


def requests(endpoint: int, size: int, count: int) -> Iterator[bytes]:
    inward = endpoint >> 7
    for number in range(1, count + 1):
        fields = (structs.USBIP_CMD_SUBMIT, number, INFO.devid, inward, endpoint & 15, 0, size, 0, 0, 0, bytes(8))
        yield structs.CMD_SUBMIT.pack(*fields) + (b"" if inward else bytes(size))


def hoard(server: Lending, messages: Iterator[bytes]) -> None:
    """Send them, and read nothing, until the server disconnects or takes no more."""
    with RawClient(server.address, BUSID) as client:
        client.sock.settimeout(_TAKES_NO_MORE)
        with suppress(ConnectionResetError, BrokenPipeError, TimeoutError):
            for message in messages:
                client.sock.sendall(message)
            poller = select.poll()
            poller.register(client.sock, select.POLLRDHUP)
            poller.poll(int(_TAKES_NO_MORE * 1000))


def test_a_gigabyte_that_the_device_does_not_take(stuck: Lending) -> None:
    for _ in range(ROUNDS):
        hoard(stuck, requests(BULK_OUT, 1 << 20, GIGABYTE >> 20))
        stuck.is_bounded()


def test_many_reads_that_do_not_end(stuck: Lending) -> None:
    for _ in range(ROUNDS):
        hoard(stuck, requests(BULK_IN, 1 << 20, 4096))
        stuck.is_bounded()


def test_replies_that_nobody_reads(ready: Lending) -> None:
    for _ in range(ROUNDS):
        hoard(ready, requests(BULK_IN, 64 << 10, 20_000))
        ready.is_bounded()
