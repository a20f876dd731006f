"""URBs a second of a server with a device by libusb, which is simulated: with the capture off, then on, in each round.

No USB device is needed: what is measured is the server, `LibusbDevice` and the simulation. The client is a process of
its own that has made its requests before: bulk IN and OUT by turns, so many in flight, on a device that is ready at
once. Also without a server, at the `Device` level, where the capture is most of what there is.

    python bench/libusb_device.py [--rounds 5] [--transfers 10000] [--in-flight 16] [--size 512]
"""

from __future__ import annotations

import argparse
import io
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.fakes.simulated_usb1 import SimulatedUsb1
from usbip_capture import PcapWriter
from usbip_capture.demo.device import BULK_IN, BULK_OUT, BUSID, DESCRIPTORS, INFO
from usbip_capture.device import Device, Transfer
from usbip_capture.devices.libusb.binding import Libusb
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.server import Server
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.tap import Tapped
from usbip_capture.usb.urb import DIR_IN, Completion, TransferType, Urb
from usbip_capture.wire import structs

_PLACE = "libusb-bench"


class Ready(SimulatedDevice):
    """The demo device's descriptors; each bulk transfer is done at once."""

    def __init__(self, size: int) -> None:
        super().__init__(INFO, DESCRIPTORS)
        self._data = bytes(size)

    def submit(self, transfer: Transfer) -> None:
        urb = transfer.urb
        if urb.transfer_type == TransferType.BULK:
            transfer.finish(Completion(0, urb.length, self._data if urb.endpoint & DIR_IN else b""))
        else:
            super().submit(transfer)


# -- the client


def client(port: int, transfers: int, in_flight: int, size: int) -> None:
    """Print URBs a second."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REQ_IMPORT, 0) + structs.pack_busid(BUSID)
        sock.sendall(request)
        sock.recv(8 + structs.DEVICE.size, socket.MSG_WAITALL)
        sent = [_request(number, size) for number in range(transfers)]
        expected = structs.HEADER_SIZE * transfers + size * (transfers // 2)
        began = time.perf_counter()
        sock.sendall(b"".join(sent[:in_flight]))
        got, answered = 0, 0
        pair = 2 * structs.HEADER_SIZE + size
        while got < expected:
            got += len(sock.recv(1 << 18))
            done = got // pair * 2
            if done > answered:
                sock.sendall(b"".join(sent[answered + in_flight : done + in_flight]))
                answered = done
        print(transfers / (time.perf_counter() - began))


def _request(number: int, size: int) -> bytes:
    inward = number & 1
    header = structs.CMD_SUBMIT.pack(1, number + 1, INFO.devid, inward, BULK_IN & 15, 0, size, 0, 0, 0, bytes(8))
    return header if inward else header + bytes(size)


# -- the server


def opened(stack: ExitStack, size: int) -> Device:
    """The device, by libusb."""
    module = SimulatedUsb1()
    module.plug(Ready(size))
    libusb = Libusb(module)
    stack.callback(libusb.close)
    device = LocalBus(libusb, "/there/is/no/sysfs").devices()[0].open()
    stack.callback(device.close)
    return device


def tapped(stack: ExitStack, device: Device) -> Device:
    """With all that passes captured."""
    writer = stack.enter_context(PcapWriter(io.BytesIO()))
    return Tapped(device, writer.add_usb_interface(device.info, server=_PLACE))


def through_server(args: argparse.Namespace, *, capture: bool) -> float:
    """URBs a second."""
    with ExitStack() as stack:
        server = Server()
        stack.callback(server.close)
        device = opened(stack, args.size)
        server.add(device.info, lambda: tapped(stack, device) if capture else device)
        port = server.listen("127.0.0.1", 0)[1]
        command = [sys.executable, __file__, "--client", str(port)]
        command += ["--transfers", str(args.transfers), "--in-flight", str(args.in_flight), "--size", str(args.size)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def alone(args: argparse.Namespace, *, capture: bool) -> float:
    """URBs a second: each completion submits the next one."""
    with ExitStack() as stack:
        device = opened(stack, args.size)
        return _run(tapped(stack, device) if capture else device, args)


def _run(device: Device, args: argparse.Namespace) -> float:
    urbs = (
        Urb(TransferType.BULK, BULK_IN, args.size),
        Urb(TransferType.BULK, BULK_OUT, args.size, bytes(args.size)),
    )
    left = iter(range(args.transfers))
    finished = threading.Semaphore(0)

    def submit() -> None:
        number = next(left, None)
        if number is None:
            finished.release()
        else:
            device.submit(Transfer(urbs[number & 1], done))

    def done(_: Completion) -> None:
        submit()

    began = time.perf_counter()
    for _ in range(args.in_flight):
        submit()
    for _ in range(args.in_flight):
        finished.acquire()
    return float(args.transfers / (time.perf_counter() - began))


def main() -> None:
    """Print medians over all rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transfers", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        client(args.client, args.transfers, args.in_flight, args.size)
        return
    print(f"bulk of {args.size} bytes, {args.in_flight} in flight")
    for name, measure in (("through a server", through_server), ("at the device  ", alone)):
        rounds = [(measure(args, capture=False), measure(args, capture=True)) for _ in range(args.rounds)]
        off, on = (statistics.median(found) for found in zip(*rounds, strict=True))
        ratio = statistics.median(off / on for off, on in rounds)
        print(f"{name}: {off:7.0f} URBs/s, with capture {on:7.0f}: {ratio:.2f} times as dear")


if __name__ == "__main__":
    main()
