"""USB/IP within TLS against plain TCP: the same device, server and client, at two ports of one server.

The server is a process of its own, on the same processor where the system can: otherwise the scheduler's choice of
processors, which differs from run to run, is most of what is measured. Each round measures plain, then TLS, so that
ratios hold while the machine's speed drifts.

    python bench/tls.py [--rounds 7] [--seconds 0.4] [--unpinned]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
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
from usbip_capture.tls.client import connect_tls
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
    """Print the ports of plain and of TLS; until the input ends."""
    context = ServerContext(own_identity(SERVER))
    with closing(Server()) as server:
        for port in (1, 2):  # each client has one
            module = ReadyUsb1()
            module.plug(SimulatedDevice(INFO, DESCRIPTORS), [port])
            device = LocalBus(Libusb(module), "/there/is/no/sysfs").devices()[0]
            server.add(device.info, device.open)
        plain, tls = server.listen(HOST, 0), server.listen_tls(HOST, 0, context, lambda transport, peer: None)
        print(plain[1], tls[1], flush=True)
        sys.stdin.read()


@contextmanager
def serving() -> Iterator[dict[str, Callable[[], Transport]]]:
    """How to connect to a server that runs meanwhile, by the names of what carries it."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CONFIG_HOME"] = folder
        command = [sys.executable, __file__, "--serve"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            plain, tls = map(int, process.stdout.readline().split())
            remember(HOST, tls, KnownServer(own_identity(SERVER).fingerprint))
            yield {
                "plain": lambda: SocketTransport(connect(HOST, plain, TIMEOUT), "plain"),
                "TLS": lambda: connect_tls(HOST, tls, TIMEOUT),
            }
            process.kill()


# -- the client


def in_turn(device: Device, urbs: list[Urb], in_flight: int, seconds: float) -> float:
    """Transfers a second, so many at a time, awaited in their order."""
    pending: list[Transfer] = []
    done = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        while len(pending) < in_flight:
            transfer = Transfer(urbs[(done + len(pending)) % len(urbs)])
            device.submit(transfer)
            pending.append(transfer)
        first = pending.pop(0)
        if not device.wait(first, TIMEOUT) or first.completion is None or first.completion.status:
            raise SystemExit(f"a transfer failed: {first.completion}")
        done += 1
    rate = done / (time.perf_counter() - began)
    for transfer in pending:
        device.wait(transfer, TIMEOUT)
    return rate


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


def handshake(open_transport: Callable[[], Transport], times: int) -> float:
    """Milliseconds until there is a connection."""
    began = time.perf_counter()
    for _ in range(times):
        open_transport().close()
    return (time.perf_counter() - began) / times * 1e3


def main() -> None:
    """Print medians over all rounds; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.4, help="for each measurement")
    parser.add_argument("--unpinned", action="store_true", help="let the system choose processors")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    if not args.unpinned and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with serving() as ways:
        opening = {way: handshake(open_transport, 20) for way, open_transport in ways.items()}
        devices = {way: configured(ways[way], f"1-{number}") for number, way in enumerate(ways, 1)}
        rounds = [
            {
                name: {way: in_turn(device, *measure, args.seconds) for way, device in devices.items()}
                for name, measure in MEASURES.items()
            }
            for _ in range(args.rounds)
        ]
    missed = False
    for name, goal in GOALS.items():
        plain, tls = (statistics.median(found[name][way] for found in rounds) for way in ("plain", "TLS"))
        ratio = statistics.median(found[name]["TLS"] / found[name]["plain"] for found in rounds)
        cost = f", {1 / ratio:.2f} times the time" if "control" in name else ""
        print(f"{name:26} plain {plain:7.0f}/s  TLS {tls:7.0f}/s  {ratio:.2f}{cost} (at least {goal:.3g})")
        missed = missed or ratio < goal
    print("a connection: " + ", ".join(f"{way} {took:.2f} ms" for way, took in opening.items()))
    raise SystemExit(missed)


if __name__ == "__main__":
    main()
