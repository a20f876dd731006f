"""What those who watch a server cost it, and those who use its devices.

Our server lends a device on a simulated libusb; a client of a bare socket reads it. Viewers are connections that take
the stream of the dashboard, in a process of its own, without looking at it. Each server is a process of its own, in
rounds by turns, so that ratios hold while the machine's speed drifts.

- While others join and leave all the time: throughput and median latency, against those with nobody there; of a disk of
  40 MB/s, and of a device that is ready at once, so that all is the server's work.
- Viewers: processor time of the server for each URB, and what each viewer adds after the first to what the first adds.

    python bench/server_stream.py [--rounds 3] [--joins 1000] [--pause 0] [--seconds 2]
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from local_server import BULK_SIZE
from ready_usb1 import Handle, Plugged, ReadyUsb1, Transfer
from web import TimedClient

from tests.fakes.simulated_usb1 import USBDevice
from usbip_capture import serve
from usbip_capture.demo.device import BULK_IN, BUSID, DESCRIPTORS, INFO
from usbip_capture.device import Device
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.wire import structs

#: Seconds that the disk takes for each URB.
DISK = BULK_SIZE / 40e6
#: Viewers of the second part.
VIEWERS = (0, 1, 2, 32)
#: Throughput at least, and median latency at most, against those with nobody there; cost of a further viewer.
THROUGHPUT, LATENCY, FURTHER = 0.95, 1.05, 0.2
_TICKS = os.sysconf("SC_CLK_TCK")


class Disk(ReadyUsb1):
    """Bulk transfers take their time, one after the other."""

    def plug(self, device: Device, ports: Sequence[int] = (1,)) -> USBDevice:
        attached = _PluggedDisk(self, device, ports)
        self.attached.append(attached)
        return attached


class _PluggedDisk(Plugged):
    def open(self) -> Handle:
        return _DiskHandle(self.module, self)


class _DiskHandle(Handle):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.submitted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def getTransfer(self, iso_packets: int = 0) -> Any:
        return _DiskTransfer(self)

    def _work(self) -> None:
        while True:
            submit = self.submitted.get()
            time.sleep(DISK)
            submit()


class _DiskTransfer(Transfer):
    __slots__ = ("_disk",)

    def __init__(self, disk: _DiskHandle) -> None:
        super().__init__(disk)
        self._disk = disk

    def submit(self) -> None:
        if type(self.getBuffer()) is memoryview:  # a control transfer
            super().submit()
        else:
            self._disk.submitted.put(super().submit)


def serve_device(*, disk: bool) -> None:
    """In a process of its own: prints where it is, and serves until it is killed."""
    module = Disk() if disk else ReadyUsb1()
    module.plug(SimulatedDevice(INFO, DESCRIPTORS))
    bus = LocalBus(Libusb(module), "/there/is/no/sysfs")
    server = serve(["all"], listen="127.0.0.1:0", web="127.0.0.1:0", bus=bus)
    print(server.addresses[0][1], server.dashboard.link if server.dashboard else "", flush=True)
    threading.Event().wait()


def joined(link: str) -> socket.socket:
    """A connection that is sent the stream."""
    place = urlsplit(link)
    sock = socket.create_connection((place.hostname, place.port or 80), 20)
    sock.sendall(
        b"GET /api/v1/captures/stream?events=1&alive=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Authorization: Bearer " + place.query.partition("=")[2].encode() + b"\r\n\r\n"
    )
    answer = sock.recv(1 << 16)
    if b" 200 " not in answer:
        raise SystemExit(f"the server cannot be joined: {answer!r}")
    return sock


def join_and_leave(link: str, times: int, pause: float) -> None:
    """In a process of its own: each time until some of the stream has come, and seconds after the time before."""
    for _ in range(times):
        time.sleep(pause)
        with joined(link) as sock:
            left = 4096
            while left > 0:
                left -= len(sock.recv(1 << 16))


def watch(link: str, viewers: int) -> None:
    """In a process of its own: prints a line when all have joined."""
    selector = selectors.DefaultSelector()
    for _ in range(viewers):
        selector.register(joined(link), selectors.EVENT_READ)
    print("joined", flush=True)
    while selector.get_map():
        for key, _ in selector.select():
            if not key.fileobj.recv(1 << 20):  # type: ignore[union-attr]
                selector.unregister(key.fileobj)


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """This file in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def served(*, disk: bool = False) -> Iterator[tuple[subprocess.Popen[str], TimedClient, str]]:
    """A server, its client, and the link of its dashboard."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        places = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "HOME"), folder)
        process = stack.enter_context(started("--serve", "disk" if disk else "ready", **places))
        assert process.stdout is not None
        port, link = process.stdout.readline().split()
        client = TimedClient(int(port), BUSID)
        stack.callback(client.close)
        reading(client, 0.1)
        yield process, client, link


def reading(client: TimedClient, seconds: float) -> list[float]:
    """How long each URB took, as a disk is read: one after the other."""
    request = client._request(BULK_IN & 15, 1, BULK_SIZE, bytes(8))
    return client.latencies([request], [structs.HEADER_SIZE + BULK_SIZE], 1, seconds)


def processor(process: subprocess.Popen[str]) -> float:
    """Seconds of it that this process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def while_joining(times: int, pause: float, seconds: float, *, disk: bool) -> tuple[float, float, float]:
    """Throughput and median latency, against those before and after; joins a second."""
    with served(disk=disk) as (_, client, link):
        alone = reading(client, seconds)
        began, found = time.perf_counter(), []
        with started("--join", str(times), "--pause", str(pause), "--link", link) as process:
            while process.poll() is None:
                found += reading(client, 0.2)
        took = time.perf_counter() - began
        alone += reading(client, seconds)
    rate, rate_alone = len(found) / sum(found), len(alone) / sum(alone)
    return rate / rate_alone, statistics.median(found) / statistics.median(alone), times / took


def cost(viewers: int, seconds: float) -> float:
    """Microseconds of the processor for each URB."""
    with served() as (process, client, link), ExitStack() as stack:
        if viewers:
            watching = stack.enter_context(started("--watch", str(viewers), "--link", link))
            assert watching.stdout is not None
            watching.stdout.readline()
        before = processor(process)
        number = len(reading(client, seconds))
        return (processor(process) - before) / number * 1e6


def compare(args: argparse.Namespace) -> None:
    for disk, name in ((True, "a disk"), (False, "a device that is ready at once")):
        report_joining(args, name, disk=disk)
    report_viewers(args)


def report_joining(args: argparse.Namespace, name: str, *, disk: bool) -> None:
    found = [while_joining(args.joins, args.pause, args.seconds, disk=disk) for _ in range(args.rounds)]
    rate, latency, joins = (statistics.median(values) for values in zip(*found, strict=True))
    print(f"{name}, {args.joins} times joined and left, {joins:.0f} a second:")
    print(f"    throughput: {rate:.2f} times that alone (at least {THROUGHPUT:g})")
    print(f"    median latency: {latency:.2f} times that alone (at most {LATENCY:g})")


def report_viewers(args: argparse.Namespace) -> None:
    rounds = [{viewers: cost(viewers, args.seconds) for viewers in VIEWERS} for _ in range(args.rounds)]
    costs = {viewers: statistics.median(one[viewers] for one in rounds) for viewers in VIEWERS}
    first = costs[1] - costs[0]
    for viewers, value in costs.items():
        further = (value - costs[1]) / (viewers - 1) / first if viewers > 1 else 0.0
        goal = f", each after the first {further:.2f} times the first (at most {FURTHER:g})" if viewers > 1 else ""
        print(f"{viewers} viewers: {value:.0f} us of the processor for each URB{goal}")


def main() -> None:
    """Print medians over all rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--joins", type=int, default=1000)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before each join")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--join", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--watch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--link", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve_device(disk=args.serve == "disk")
    elif args.join:
        join_and_leave(args.link, args.join, args.pause)
    elif args.watch:
        watch(args.link, args.watch)
    else:
        compare(args)


if __name__ == "__main__":
    main()
