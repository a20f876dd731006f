"""What the dashboard costs those who use devices: the median latency of URBs with pages open, against that without.

Our server lends a device on a simulated libusb that is ready at once; a client of a bare socket keeps it busy. A page
is a connection that takes the figures, twice a second, in a process of its own; what a browser draws is not measured.
Each server is a process of its own, in rounds by turns, so that ratios hold while the machine's speed drifts.

    python bench/web.py [--rounds 5] [--seconds 1]
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
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from local_server import BULK_SIZE, Client
from ready_usb1 import ReadyUsb1

from usbip_capture import serve
from usbip_capture.demo.device import BULK_IN, BUSID, DESCRIPTORS, INFO
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.wire import structs

#: Pages that are open; without a number there is no dashboard at all.
VARIANTS: dict[str, int | None] = {"no dashboard": None, "no page open": 0, "one page": 1, "100 pages": 100}
#: At most so many times the median of "no page open".
GOALS = {"one page": 1.05, "100 pages": 1.2}


def serve_device(web: bool) -> None:
    """In a process of its own: prints where it is, and serves until it is killed."""
    module = ReadyUsb1()
    module.plug(SimulatedDevice(INFO, DESCRIPTORS))
    bus = LocalBus(Libusb(module), "/there/is/no/sysfs")
    server = serve(["all"], listen="127.0.0.1:0", web="127.0.0.1:0" if web else (), bus=bus)
    print(server.addresses[0][1], server.dashboard.link if server.dashboard else "", flush=True)
    threading.Event().wait()


def open_pages(link: str, count: int) -> None:
    """In a process of its own: reads what pages get, without looking at it; prints a line when all are open."""
    place = urlsplit(link)
    selector = selectors.DefaultSelector()
    for _ in range(count):
        sock = socket.create_connection((place.hostname, place.port or 80), 20)
        sock.sendall(
            b"GET /api/v1/figures HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            b"Authorization: Bearer " + place.query.partition("=")[2].encode() + b"\r\n\r\n"
        )
        answer = sock.recv(1 << 16)
        if b" 101 " not in answer:
            raise SystemExit(f"no page can be opened: {answer!r}")
        selector.register(sock, selectors.EVENT_READ)
    print("open", flush=True)
    while selector.get_map():
        for key, _ in selector.select():
            if not key.fileobj.recv(1 << 16):  # type: ignore[union-attr]
                selector.unregister(key.fileobj)


class TimedClient(Client):
    """Knows how long each URB takes."""

    def latencies(self, requests: list[bytearray], sizes: list[int], in_flight: int, seconds: float) -> list[float]:
        """Seconds from sending a request to having its reply."""
        found: list[float] = []
        sent: deque[float] = deque()
        number = answered = left = 0
        until = time.perf_counter() + seconds
        while number < in_flight:
            sent.append(time.perf_counter())
            self._send(requests[number % len(requests)], number)
            number += 1
        while sent:
            left -= self.sock.recv_into(self._buffer)
            while sent and left + sizes[answered % len(sizes)] <= 0:
                left += sizes[answered % len(sizes)]
                now = time.perf_counter()
                found.append(now - sent.popleft())
                answered += 1
                if now < until:
                    sent.append(time.perf_counter())
                    self._send(requests[number % len(requests)], number)
                    number += 1
        return found

    def measured(self, seconds: float) -> Iterator[tuple[str, float]]:
        """Medians in microseconds."""
        control = self._request(0, 1, 18, get_descriptor(1, 0, 0, 18).pack())
        endpoint = BULK_IN & 15
        bulk = [
            self._request(endpoint, 0, BULK_SIZE, bytes(8)) + bytes(BULK_SIZE),
            self._request(endpoint, 1, BULK_SIZE, bytes(8)),
        ]
        head = structs.HEADER_SIZE
        for name, requests, sizes, in_flight in (
            ("control", [control], [head + 18], 1),
            ("bulk 64 KiB", bulk, [head, head + BULK_SIZE], 1),
            ("bulk 64 KiB, 16 in flight", bulk, [head, head + BULK_SIZE], 16),
        ):
            yield name, statistics.median(self.latencies(requests, sizes, in_flight, seconds)) * 1e6


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[list[str]]:
    """This file, started with these; the words of its first line."""
    command = [sys.executable, __file__, *arguments]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    assert started.stdout is not None
    try:
        yield started.stdout.readline().split()
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


def measured(pages: int | None, seconds: float) -> dict[str, float]:
    """Of a server that is started for it."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        places = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "HOME"), folder)
        words = stack.enter_context(process("--serve", "" if pages is None else "web", **places))
        if pages:
            stack.enter_context(process("--pages", str(pages), "--link", words[1]))
        client = TimedClient(int(words[0]), BUSID)
        try:
            dict(client.measured(0.1))
            return dict(client.measured(seconds))
        finally:
            client.close()


def main() -> None:
    """Print medians over all rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measurement")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--pages", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--link", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        serve_device(bool(args.serve))
    elif args.pages:
        open_pages(args.link, args.pages)
    else:
        compare(args)


def compare(args: argparse.Namespace) -> None:
    rounds = [{name: measured(pages, args.seconds) for name, pages in VARIANTS.items()} for _ in range(args.rounds)]
    for measure in rounds[0]["no page open"]:
        print(f"{measure}:")
        for name in VARIANTS:
            median = statistics.median(found[name][measure] for found in rounds)
            ratio = statistics.median(found[name][measure] / found["no page open"][measure] for found in rounds)
            goal = f" (at most {GOALS[name]:g})" if name in GOALS else ""
            print(f"    {name}: {median:.1f} us, {ratio:.2f} times that without a page{goal}")


if __name__ == "__main__":
    main()
