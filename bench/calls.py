"""Calls of Python and of C functions that a transfer through PyUSB takes on the caller's thread, capture off and on.

What no machine's load changes; against pyusb-usbip-backend 0.0.1, fetched with pip into a folder of its own. Then,
where strace is there, the futex calls of all threads in control transfers at the Device level: hand-overs between the
threads, which do depend on the machine, with a C server that answers at once, and with one that takes its time.

    python bench/calls.py [--details] [--urbs 3000] [--delay 200]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import usb.core
from device_latency import SETUP, attach, build
from pyusb_backend import PEER, fetch_peer, serving

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.calls import calls_of
from usbip_capture import PcapWriter, get_backend
from usbip_capture.tap import Tapped
from usbip_capture.usb.urb import Urb

BUFFER = array("B", bytes(64))
TRANSFERS: dict[str, Callable[[usb.core.Device], object]] = {
    "control in": lambda dev: dev.ctrl_transfer(0x80, 6, 0x0100, 0, 18),
    "control out": lambda dev: dev.ctrl_transfer(0x40, 0x10, 0, 0, b"stored"),
    "bulk in": lambda dev: dev.read(0x81, BUFFER),
    "bulk out": lambda dev: dev.write(0x01, BUFFER),
}


def count(name: str, backend: Any, *, details: bool) -> None:
    """One line of each kind of transfer."""
    dev = usb.core.find(backend=backend)
    dev.set_configuration()
    found = {}
    for what, transfer in TRANSFERS.items():
        found[what] = calls_of(lambda run=transfer: run(dev))  # type: ignore[misc]
    usb.util.dispose_resources(dev)
    figures = [f"{what} {sum(python.values()) - 1:3} + {sum(c.values()):2}" for what, (python, c) in found.items()]
    print(f"  {name:15}", "   ".join(figures))
    if details:
        for called in (calls for pair in found.values() for calls in pair):
            print("     ", ", ".join(f"{name} {count}" for name, count in called.most_common()))


def run_urbs(port: int, urbs: int, captured: bool) -> None:
    """What strace watches."""
    device = attach(port)
    with tempfile.TemporaryDirectory() as folder, PcapWriter(Path(folder, "out.pcapng")) as writer:
        tapped = Tapped(device, writer.add_usb_interface(device.info, server="bench")) if captured else device
        for _ in range(urbs):
            tapped.run(Urb.control(SETUP), 1.0)
        tapped.close()


def futexes(port: int, urbs: int, captured: bool) -> int:
    """How many futex calls `run_urbs` makes."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        command = ["strace", "-f", "--seccomp-bpf", "-c", "-e", "trace=futex", "-o", str(log)]
        command += [sys.executable, __file__, "--run", str(port), "--urbs", str(urbs), *["--captured"] * captured]
        subprocess.run(command, check=True)
        lines = [line.split() for line in log.read_text().splitlines() if line.endswith("futex")]
        return sum(int(line[3]) for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--details", action="store_true", help="each function")
    parser.add_argument("--urbs", type=int, default=3000)
    parser.add_argument("--delay", type=int, default=200, help="microseconds that the slower server takes")
    parser.add_argument("--run", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--captured", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run_urbs(args.run, args.urbs, args.captured)
        return
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        peer = fetch_peer(folder)
        print("calls of Python functions + of C functions, a transfer, with PyUSB's (target: 20, captured 25)")
        with serving(program) as port:
            for name, target in (("ours", None), ("ours, captured", Path(folder, "calls.pcapng"))):
                with get_backend("127.0.0.1", port, pcap=target) as backend:
                    count(name, backend, details=args.details)
            if peer is None:
                print(f"  {PEER} cannot be installed")
            else:
                count("peer", peer.get_backend("127.0.0.1", port), details=args.details)
        if shutil.which("strace") is None:
            return
        print(f"futex calls in {args.urbs} control transfers, three times")
        for delay in (0, args.delay):
            for captured in (False, True):
                with serving(program, delay_us=delay) as port:
                    found = [futexes(port, args.urbs, captured) for _ in range(3)]
                print(f"  answered after {delay:3} us, capture {'on ' if captured else 'off'}  ", *found)


if __name__ == "__main__":
    main()
