"""USB/IP within TLS against plain TCP: the same device, server and client, at two ports of one server.

The server is a process of its own, on the same processor where the system can: the best rates then follow from the CPU
time of both processes for a transfer, which holds on a machine that has other work. Rounds measure plain and TLS by
turns, and the least of all rounds counts. The device costs next to nothing: with a real one TLS is a smaller part. What
OpenSSL takes to encrypt and decrypt 64 KiB, in memory and without us, is the limit of what can be had.

    python bench/tls.py [--rounds 9] [--seconds 0.15]
"""

from __future__ import annotations

import argparse
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ready_usb1 import ReadyUsb1

from usbip_capture.demo.device import BULK_IN, BULK_OUT, DESCRIPTORS, INFO
from usbip_capture.device import Device, Transfer
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.devices.remote import import_device
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport, Transport
from usbip_capture.server import Server
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.tls.certificates import SERVER, own_identity
from usbip_capture.tls.client import client_context, connect_tls
from usbip_capture.tls.known_servers import KnownServer, remember
from usbip_capture.tls.server import ServerContext
from usbip_capture.usb.setup import get_descriptor, set_configuration
from usbip_capture.usb.urb import TransferType, Urb

HOST, TIMEOUT = "127.0.0.1", 10.0
BULK_SIZE = 64 << 10
CONTROL = Urb.control(get_descriptor(1, 0, 0, 18).pack())
BULK = [
    Urb(TransferType.BULK, BULK_OUT, BULK_SIZE, bytes(BULK_SIZE)),
    Urb(TransferType.BULK, BULK_IN, BULK_SIZE),
]


# -- the server, in a process


def serve() -> None:
    """Print the ports of plain and of TLS, then for each line that comes the seconds of CPU time until now."""
    context = ServerContext(own_identity(SERVER))
    with closing(Server()) as server:
        for port in (1, 2):  # each client has one
            module = ReadyUsb1()
            module.plug(SimulatedDevice(INFO, DESCRIPTORS), [port])
            device = LocalBus(Libusb(module), "/there/is/no/sysfs").devices()[0]
            server.add(device.info, device.open)
        plain, tls = server.listen(HOST, 0), server.listen_tls(HOST, 0, context, lambda transport, peer: None)
        print(plain[1], tls[1], flush=True)
        for _ in sys.stdin:
            print(time.process_time(), flush=True)


class Serving:
    """A server that runs meanwhile. ways: how to connect to it, by the names of what carries it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        plain, tls = map(int, self._line().split())
        remember(HOST, tls, KnownServer(own_identity(SERVER).fingerprint))
        self.ways: dict[str, Callable[[], Transport]] = {
            "plain": lambda: SocketTransport(connect(HOST, plain, TIMEOUT), "plain"),
            "TLS": lambda: connect_tls(HOST, tls, TIMEOUT),
        }

    def cpu(self) -> float:
        """Seconds of CPU time of this process and of the server until now."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._line()) + time.process_time()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def serving() -> Iterator[Serving]:
    """Run one."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CONFIG_HOME"] = folder
        command = [sys.executable, __file__, "--serve"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield Serving(process)
            process.kill()


# -- the client


def in_turn(device: Device, urbs: list[Urb], in_flight: int, seconds: float) -> int:
    """So many at a time, awaited in their order; how many."""
    pending: list[Transfer] = []
    submitted = done = 0
    until = time.perf_counter() + seconds
    while True:
        while len(pending) < in_flight and time.perf_counter() < until:
            transfer = Transfer(urbs[submitted % len(urbs)])
            device.submit(transfer)
            pending.append(transfer)
            submitted += 1
        if not pending:
            return done
        first = pending.pop(0)
        if not device.wait(first, TIMEOUT) or first.completion is None or first.completion.status:
            raise SystemExit(f"a transfer failed: {first.completion}")
        done += 1


MEASURES: dict[str, tuple[list[Urb], int]] = {
    "control": ([CONTROL], 1),
    "control, 16 in flight": ([CONTROL], 16),
    "bulk 64 KiB OUT": (BULK[:1], 1),
    "bulk 64 KiB IN": (BULK[1:], 1),
    "bulk 64 KiB, 16 in flight": (BULK, 16),
}
#: The least that TLS reaches of plain.
GOALS = {name: 1 / 1.6 if "control" in name else 0.6 for name in MEASURES}


def configured(open_transport: Callable[[], Transport], busid: str) -> Device:
    """A device through a connection of its own."""
    device = import_device(open_transport(), busid, TIMEOUT)
    device.run(Urb.control(set_configuration(1).pack()), TIMEOUT)
    return device


def best(server: Serving, devices: dict[str, Device], name: str, seconds: float, rounds: int) -> dict[str, float]:
    """Microseconds of CPU time for a transfer, by way."""
    least = dict.fromkeys(devices, float("inf"))
    for _ in range(rounds):
        for way, device in devices.items():
            before = server.cpu()
            done = in_turn(device, *MEASURES[name], seconds)
            least[way] = min(least[way], (server.cpu() - before) / done * 1e6)
    return least


def opening(server: Serving, open_transport: Callable[[], Transport], times: int) -> float:
    """Milliseconds of CPU time for a connection."""
    before = server.cpu()
    for _ in range(times):
        open_transport().close()
    return (server.cpu() - before) / times * 1e3


def openssl_alone(rounds: int) -> float:
    """Microseconds to encrypt and decrypt 64 KiB, in memory."""
    path = own_identity(SERVER).path
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    of_server.load_cert_chain(path)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(to_client, to_server)
    server = of_server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for end in (client, server):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    data, buffer = bytes(BULK_SIZE), memoryview(bytearray(BULK_SIZE))
    least = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        written = got = 0
        while written < BULK_SIZE:
            written += client.write(data[written:])
        while got < BULK_SIZE:
            got += server.read(BULK_SIZE - got, buffer[got:])  # type: ignore[operator]
        least = min(least, time.perf_counter() - began)
    return least * 1e6


def main() -> None:
    """Print a line for each measurement; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.15, help="for each measurement")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    missed = False
    with serving() as server:
        took = {way: opening(server, open_transport, 20) for way, open_transport in server.ways.items()}
        devices = {way: configured(server.ways[way], f"1-{number}") for number, way in enumerate(server.ways, 1)}
        for name, goal in GOALS.items():
            plain, tls = best(server, devices, name, args.seconds, args.rounds).values()
            cost = f"{tls / plain:.2f} times the time, " if "control" in name else ""
            figures = f"plain {plain:6.1f} us, TLS {tls:6.1f} us: {cost}{plain / tls:.2f} of the rate"
            print(f"{name:26} {figures} (at least {goal:.3g})")
            missed = missed or plain / tls < goal
        print(f"64 KiB encrypted and decrypted by OpenSSL alone: {openssl_alone(300):.1f} us")
        print("a connection: " + ", ".join(f"{way} {milliseconds:.2f} ms" for way, milliseconds in took.items()))
    raise SystemExit(missed)


if __name__ == "__main__":
    main()
