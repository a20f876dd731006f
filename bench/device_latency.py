"""A control transfer at the Device level against a C loop over a blocking socket, both with the same C server.

Each round runs C, then a bare Python loop that sends one message again and again and looks at no reply, then ours with
the capture off, then on, so that the ratios hold while the machine's speed drifts. What bare Python takes beside C is
what no client in Python can do without.
All run on one processor where the system can: otherwise the scheduler's choice of processors, which differs
from run to run, is most of what is measured. Also the CPU time that the capture costs the caller's thread, a URB.

    python bench/device_latency.py [--rounds 9] [--transfers 5000] [--unpinned]
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from usbip_capture import PcapWriter
from usbip_capture.device import Device
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.tap import Tapped
from usbip_capture.usb.urb import Urb
from usbip_capture.wire.structs import DEVICE, OP_COMMON, OP_REQ_IMPORT, VERSION, pack_busid, pack_submit, unpack_device

SETUP = bytes.fromhex("8006000100001200")


def build(folder: Path) -> Path:
    """The C program beside this file, compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SystemExit("no C compiler here: this benchmark compares with C")
    program = folder / "peer"
    subprocess.run([compiler, "-O2", "-Wall", "-o", program, Path(__file__).with_name("peer.c")], check=True)
    return program


def in_c(program: Path, port: int, transfers: int, *bulk: str) -> list[float]:
    """Microseconds of each control transfer, or of bulk transfers "in" or "out"."""
    command = [str(program), "client", str(port), str(transfers), *bulk]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(line) / 1000 for line in out.stdout.split()]


def in_python(port: int, transfers: int) -> list[float]:
    """As `in_c`, for control transfers, by the least that Python can do."""
    times, clock, reply = [], time.perf_counter_ns, bytearray(4096)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(OP_COMMON.pack(VERSION, OP_REQ_IMPORT, 0) + pack_busid("1-1"))
        sock.recv_into(reply, OP_COMMON.size + DEVICE.size, socket.MSG_WAITALL)
        devid = unpack_device(reply[OP_COMMON.size : OP_COMMON.size + DEVICE.size]).devid
        message = pack_submit(Urb.control(SETUP), 1, devid)
        for _ in range(transfers):
            start = clock()
            sock.sendall(message)
            sock.recv_into(reply)
            times.append((clock() - start) / 1000)
    return times


def timed(device: Device, transfers: int) -> tuple[list[float], float]:
    """Microseconds of each transfer, and CPU microseconds of this thread for each."""
    times, clock, urb_data = [], time.perf_counter_ns, SETUP
    cpu = time.thread_time_ns()
    for _ in range(transfers):
        start = clock()
        device.run(Urb.control(urb_data), 1.0)
        times.append((clock() - start) / 1000)
    return times, (time.thread_time_ns() - cpu) / 1000 / transfers


def attach(port: int) -> Device:
    """The C server's device."""
    return ServerAddress("127.0.0.1", port, 2.0).import_device(Selector("1-1"))


def one_round(program: Path, port: int, transfers: int, target: Path) -> dict[str, float]:
    """Medians and p99 in microseconds of one round of all three."""
    reference, bare = in_c(program, port, transfers), in_python(port, transfers)
    device = attach(port)
    off, off_cpu = timed(device, transfers)
    device.close()
    device = attach(port)
    with PcapWriter(target) as writer:
        on, on_cpu = timed(Tapped(device, writer.add_usb_interface(device.info, server="bench")), transfers)
        device.close()
    found = {"off_cpu": off_cpu, "on_cpu": on_cpu}
    for name, times in (("c", reference), ("bare", bare), ("off", off), ("on", on)):
        found[name] = statistics.median(times)
        found[f"{name}_p99"] = statistics.quantiles(times, n=100)[98]
    return found


def main() -> None:
    """Print medians over the rounds, and ratios round by round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--transfers", type=int, default=5000)
    parser.add_argument("--unpinned", action="store_true", help="let the system choose processors")
    args = parser.parse_args()
    if not args.unpinned and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        with subprocess.Popen([program, "serve"], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                port = int(server.stdout.readline())
                target = Path(folder) / "out.pcapng"
                rounds = [one_round(program, port, args.transfers, target) for _ in range(args.rounds)]
            finally:
                server.kill()

    def median(key: str) -> float:
        return statistics.median(r[key] for r in rounds)

    def ratio(a: str, b: str) -> float:
        return statistics.median(r[a] / r[b] for r in rounds)

    print(f"control transfer of 18 bytes, {args.rounds} rounds of {args.transfers}: median (p99) in microseconds")
    for name, label in (("c", "C loop"), ("bare", "bare Python"), ("off", "capture off"), ("on", "capture on")):
        print(f"  {label:12} {median(name):7.1f} ({median(name + '_p99'):.1f})")
    print(f"bare Python / C loop      {ratio('bare', 'c'):.2f}")
    print(f"capture off / C loop      {ratio('off', 'c'):.2f}   (target: at most 1.6, compiled 1.25)")
    print(f"capture on / capture off  {ratio('on', 'off'):.2f}   (target: at most 1.15, compiled 1.1)")
    extra = statistics.median(r["on_cpu"] - r["off_cpu"] for r in rounds)
    print(f"CPU of the caller's thread for the capture: {extra:.1f} us a URB   (target: at most 4, compiled 2)")


if __name__ == "__main__":
    main()
