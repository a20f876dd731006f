"""Our server on a simulated libusb, with the capture off and on, and against `pyusbip` if its file is given.

The same device and the same client of a bare socket for each; each server is a process of its own, in rounds by turns,
so that ratios hold while the machine's speed drifts. Data is checked for its length only. The microseconds are those
of the server's processor for a URB, its simulated libusb among them. pyusbip is no part of this project. It is repaired
as far as it starts, in memory: names that asyncio does not have any more, and the port.

    python bench/local_server.py [path/to/pyusbip.py] [--rounds 5] [--seconds 0.5]
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ready_usb1 import ReadyUsb1

from usbip_capture import PcapWriter
from usbip_capture.demo.device import BULK_IN, BUSID, DESCRIPTORS, INFO
from usbip_capture.device import Device
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.server import Server
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.tap import Tapped
from usbip_capture.usb.setup import get_descriptor, set_configuration
from usbip_capture.wire import structs

BULK_SIZE = 64 << 10
OURS, CAPTURED = "ours", "ours, with capture"
#: Times as many as pyusbip has.
GOALS = {OURS: 2.0, CAPTURED: 1.5}
#: What pyusbip has that Python has not any more; each must be there once.
REPAIRS = {
    "loop = asyncio.get_event_loop()": "loop = asyncio.new_event_loop()",
    "USBIP_PORT, loop = loop)": "USBIP_PORT)",
    "except asyncio.streams.IncompleteReadError": "except asyncio.IncompleteReadError",
    "USBIP_PORT = 3240": "USBIP_PORT = {port}",
}


# -- the servers, each in a process


def serve_ours(port: int, *, capture: bool) -> None:
    module = ReadyUsb1()
    module.plug(SimulatedDevice(INFO, DESCRIPTORS))
    device: Device = LocalBus(Libusb(module), "/there/is/no/sysfs").devices()[0].open()
    with open(os.devnull, "wb", buffering=0) as sink, PcapWriter(sink) as writer, closing(Server()) as server:
        if capture:
            device = Tapped(device, writer.add_usb_interface(device.info, server="bench"))
        server.add(device.info, lambda: device)
        server.listen("127.0.0.1", port)
        threading.Event().wait()


def serve_pyusbip(port: int, path: str) -> None:
    source = Path(path).read_text(encoding="utf-8")
    for old, new in REPAIRS.items():
        if source.count(old) != 1:
            raise SystemExit(f"{path} is another pyusbip: it does not have {old!r} once")
        source = source.replace(old, new.format(port=port))
    module = ReadyUsb1()
    module.plug(SimulatedDevice(INFO, DESCRIPTORS))
    sys.modules["usb1"] = module  # type: ignore[assignment]
    exec(compile(source, path, "exec"), {"__name__": "__main__"})  # noqa: S102  what the user has given


# -- the client


class Client:
    """Has the device imported and configured."""

    def __init__(self, port: int, busid: str) -> None:
        self.sock = _connected(port)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(structs.OP_COMMON.pack(structs.VERSION, structs.OP_REQ_IMPORT, 0) + structs.pack_busid(busid))
        reply = self.sock.recv(8 + structs.DEVICE.size, socket.MSG_WAITALL)
        fields = structs.DEVICE.unpack(reply[8:])
        self._devid = fields[2] << 16 | fields[3]
        self._buffer = memoryview(bytearray(1 << 20))
        self.run([self._request(0, 0, 0, set_configuration(1).pack())], [structs.HEADER_SIZE], 1, 0.0)

    def control(self, in_flight: int, seconds: float) -> float:
        """A second: requests for the device's descriptor."""
        request = self._request(0, 1, 18, get_descriptor(1, 0, 0, 18).pack())
        return self.run([request], [structs.HEADER_SIZE + 18], in_flight, seconds)

    def bulk(self, in_flight: int, seconds: float) -> float:
        """A second: OUT and IN by turns."""
        endpoint = BULK_IN & 15
        requests = [
            self._request(endpoint, 0, BULK_SIZE, bytes(8)) + bytes(BULK_SIZE),
            self._request(endpoint, 1, BULK_SIZE, bytes(8)),
        ]
        sizes = [structs.HEADER_SIZE, structs.HEADER_SIZE + BULK_SIZE]
        return self.run(requests, sizes, in_flight, seconds)

    def run(self, requests: list[bytearray], sizes: list[int], in_flight: int, seconds: float) -> float:
        """Send requests in turn, so many at a time, each with a reply of its size."""
        sent = answered = left = 0
        kinds = len(requests)
        began = time.perf_counter()
        while sent < in_flight:
            self._send(requests[sent % kinds], sent)
            sent += 1
        while answered < sent:
            left -= self.sock.recv_into(self._buffer)
            while answered < sent and left + sizes[answered % kinds] <= 0:
                left += sizes[answered % kinds]
                answered += 1
                if time.perf_counter() - began < seconds:
                    self._send(requests[sent % kinds], sent)
                    sent += 1
        return answered / (time.perf_counter() - began)

    def _request(self, endpoint: int, inward: int, length: int, setup: bytes) -> bytearray:
        return bytearray(structs.CMD_SUBMIT.pack(1, 1, self._devid, inward, endpoint, 0, length, 0, 0, 0, setup))

    def _send(self, request: bytearray, number: int) -> None:
        request[4:8] = (number + 1).to_bytes(4, "big")
        self.sock.sendall(request)

    def close(self) -> None:
        self.sock.close()


def _connected(port: int) -> socket.socket:
    until = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 20)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


MEASURES: dict[str, Callable[[Client, float], float]] = {
    "control": lambda client, seconds: client.control(1, seconds),
    "control, 16 in flight": lambda client, seconds: client.control(16, seconds),
    "bulk 64 KiB": lambda client, seconds: client.bulk(1, seconds),
    "bulk 64 KiB, 16 in flight": lambda client, seconds: client.bulk(16, seconds),
}


def measured(server: str, path: str, seconds: float) -> Iterator[tuple[str, tuple[float, float]]]:
    """A second, and the microseconds of the processor for each, of a server that is started for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, *([path] if path else []), "--serve", server, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # where pyusbip prints a line for each URB
    try:
        client = Client(port, f"{INFO.busnum}-{INFO.devnum}" if server == "pyusbip" else BUSID)
        client.control(1, 0.1)
        for name, measure in MEASURES.items():
            began, cpu = time.perf_counter(), _cpu_seconds(process.pid)
            rate = measure(client, seconds)
            cpu = _cpu_seconds(process.pid) - cpu
            yield name, (rate, cpu * 1e6 / (rate * (time.perf_counter() - began)))
        client.close()
    finally:
        process.kill()
        process.wait()


def _cpu_seconds(process: int) -> float:
    """What all of its threads have used. Ref: proc(5), /proc/pid/stat"""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print medians over all rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pyusbip", nargs="?", default="", help="its file, pyusbip.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each measurement")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve == "pyusbip":
        serve_pyusbip(args.port, args.pyusbip)
    elif args.serve:
        serve_ours(args.port, capture=args.serve != "ours")
    else:
        compare(args)


def compare(args: argparse.Namespace) -> None:
    theirs = ["pyusbip"] if args.pyusbip else []
    if theirs:
        print(f"pyusbip is repaired as far as it starts, {len(REPAIRS) - 1} lines: {', '.join(list(REPAIRS)[:-1])}")
    rounds = [
        {server: dict(measured(server, args.pyusbip, args.seconds)) for server in (*theirs, *GOALS)}
        for _ in range(args.rounds)
    ]
    for name in MEASURES:
        print(f"{name}:")
        for server in (*theirs, *GOALS):
            rate, cpu = (statistics.median(found[server][name][part] for found in rounds) for part in (0, 1))
            line = f"    {server:18} {rate:6.0f}/s, {cpu:5.1f} us"
            if server == CAPTURED:
                line += f", {_ratio(rounds, name, OURS, CAPTURED):.2f} times as dear (at most 1.15)"
            if theirs and server in GOALS:
                line += f", {_ratio(rounds, name, server, 'pyusbip'):.2f} times pyusbip (at least {GOALS[server]:g})"
            print(line)


def _ratio(rounds: list[dict[str, dict[str, tuple[float, float]]]], name: str, one: str, other: str) -> float:
    """How many times as many one of them has as the other: the median of the rounds."""
    return statistics.median(found[one][name][0] / found[other][name][0] for found in rounds)


if __name__ == "__main__":
    main()
