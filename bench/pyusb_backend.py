"""Transfers through PyUSB, against a C loop and against pyusb-usbip-backend 0.0.1, all with the same C server.

Each round runs all of them, so that the ratios hold while the machine's speed drifts. All run on one processor where
the system can, but for what many threads do. The other backend is fetched with pip into a folder of its own.

    python bench/pyusb_backend.py [--rounds 7] [--transfers 3000] [--unpinned]
    python bench/pyusb_backend.py --wake-ups 1000000
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import usb.core
from device_latency import build, in_c

from usbip_capture import get_backend

PEER = "pyusb-usbip-backend==0.0.1"
BULK_SIZE = 64 << 10
THREADS = 16


def timed(call: Callable[[], object], times: int) -> list[float]:
    """Microseconds of each call."""
    found, clock = [], time.perf_counter_ns
    for _ in range(times):
        start = clock()
        call()
        found.append((clock() - start) / 1000)
    return found


@contextmanager
def serving(program: Path, processors: Set[int] = frozenset(), *, delay_us: int = 0) -> Iterator[int]:
    """The C server, on these processors if any are given, answering after so many microseconds; its port."""
    with subprocess.Popen([program, "serve", str(delay_us)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            if processors:
                os.sched_setaffinity(server.pid, processors)
            yield int(server.stdout.readline())
        finally:
            server.kill()


def measure(backend: Any, transfers: int) -> dict[str, list[float]]:
    """Control and bulk transfers through `usb.core`."""
    dev = usb.core.find(backend=backend)
    dev.set_configuration()
    buffer = array("B", bytes(BULK_SIZE))
    few = max(transfers // 2, 1)
    found = {
        "control": timed(lambda: dev.ctrl_transfer(0x80, 6, 0x0100, 0, 18), transfers),
        "bulk in": timed(lambda: dev.read(0x81, buffer), few),
        "bulk out": timed(lambda: dev.write(0x01, buffer), few),
    }
    usb.util.dispose_resources(dev)
    return found


def one_round(program: Path, port: int, transfers: int, peer: Any) -> dict[str, dict[str, list[float]]]:
    """All of them once."""
    few = max(transfers // 2, 1)
    in_c_loop = {"control": in_c(program, port, transfers)}
    in_c_loop.update({f"bulk {way}": in_c(program, port, few, way) for way in ("in", "out")})
    found: dict[str, dict[str, list[float]]] = {"C loop": in_c_loop}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for name, captured in (("ours", False), ("ours, captured", True)):
            with get_backend("127.0.0.1", port, pcap=Path(folder, "ours.pcapng") if captured else None) as backend:
                found[name] = measure(backend, transfers)
        for name, captured in (("peer", False), ("peer, captured", True)):
            if peer is not None:
                with Path(folder, "peer.pcapng").open("wb") as stream:
                    theirs = {"pcap": peer.PcapWriter(stream)} if captured else {}
                    found[name] = measure(peer.get_backend("127.0.0.1", port, **theirs), transfers)
    return found


def in_threads(port: int, transfers: int) -> tuple[float, float]:
    """Control transfers a second: of one thread, and of 16 together."""
    with get_backend("127.0.0.1", port) as backend:
        dev = usb.core.find(backend=backend)

        def run(times: int) -> None:
            for _ in range(times):
                dev.ctrl_transfer(0x80, 6, 0x0100, 0, 18)

        def rate(count: int) -> float:
            threads = [threading.Thread(target=run, args=(transfers // count,)) for _ in range(count)]
            start = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return transfers / (time.perf_counter() - start)

        return rate(1), rate(THREADS)


def report_threads(program: Path, transfers: int) -> None:
    """One thread against 16, the server on a processor of its own, beside the threads, and where the system likes."""
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    places = [("system's choice", set(processors), set(processors))]
    if len(processors) > 1:
        places.insert(0, ("server apart", {processors[0]}, {processors[1]}))
        places.append(("one processor", {processors[0]}, {processors[0]}))
    for name, ours, theirs in places:
        with serving(program, theirs) as port:
            if processors:
                os.sched_setaffinity(0, ours)
            rates = [in_threads(port, transfers) for _ in range(3)]
        alone, together = (statistics.median(rate) for rate in zip(*rates, strict=True))
        print(
            f"{name:15}  one thread {alone:6.0f} transfers a second, {THREADS} threads {together:6.0f}: "
            f"{together / alone:.2f} times   (target: above 1)"
        )
    if processors:
        os.sched_setaffinity(0, processors)


def wake_ups(program: Path, transfers: int) -> None:
    """Each reply wakes the thread that waits for it: one that is lost times out after ten seconds."""
    with serving(program) as port, get_backend("127.0.0.1", port) as backend:
        dev = usb.core.find(backend=backend)
        dev.get_active_configuration()
        done: list[int] = []

        def run(number: int) -> None:
            for count in range(transfers // THREADS):
                if len(dev.ctrl_transfer(0x80, 6, 0x0100, 0, 8 + number % 8, 10_000)) != 8 + number % 8:
                    raise SystemExit(f"thread {number} got the reply of another one, after {count}")
            done.append(transfers // THREADS)

        start = time.perf_counter()
        threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"{sum(done)} of {transfers} transfers of {THREADS} threads in {time.perf_counter() - start:.1f} s")


def late() -> list[float]:
    """Milliseconds by which time-outs of 20 ms are late, on the demo device."""
    with get_backend("demo") as backend:
        dev = usb.core.find(backend=backend)

        def expire() -> None:
            try:
                dev.read(0x84, 64, timeout=20)
            except usb.core.USBTimeoutError:
                return

        expire()
        return [us / 1000 - 20 for us in timed(expire, 50)]


def fetch_peer(folder: str) -> Any:
    """The other backend, None where pip cannot get it."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, PEER]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        return None
    sys.path.append(folder)
    module = importlib.import_module("usbip_backend")
    module.PcapWriter = importlib.import_module("usbip_backend.pcap").PcapWriter  # type: ignore[attr-defined]
    return module


def report(rounds: list[dict[str, dict[str, list[float]]]]) -> None:
    """Medians, and ratios round by round."""

    def median(name: str, what: str) -> float:
        return statistics.median(statistics.median(r[name][what]) for r in rounds)

    def ratio(a: str, b: str, what: str) -> str:
        if not all(name in rounds[0] for name in (a, b)):
            return "-"
        value = statistics.median(statistics.median(r[a][what]) / statistics.median(r[b][what]) for r in rounds)
        return f"{value:.2f}"

    def tail(name: str) -> float:
        times = [r[name]["control"] for r in rounds]
        return statistics.median(statistics.quantiles(t, n=100)[98] / statistics.median(t) for t in times)

    print(f"median of {len(rounds)} rounds, microseconds")
    for name in rounds[0]:
        print(f"  {name:15}", "  ".join(f"{what} {median(name, what):7.1f}" for what in rounds[0][name]))
    print(f"control, ours / C loop           {ratio('ours', 'C loop', 'control')}   (target: at most 2.5)")
    print(f"control, peer / ours             {ratio('peer', 'ours', 'control')}   (target: at least 1.0, aim 1.2)")
    print(f"control, captured, peer / ours   {ratio('peer, captured', 'ours, captured', 'control')}   (2.5)")
    print(f"control, ours captured / off     {ratio('ours, captured', 'ours', 'control')}   (target: at most 1.15)")
    for way in ("bulk in", "bulk out"):
        limit = ratio("peer", "C loop", way)
        print(f"{way:8} 64 KiB, peer / ours    {ratio('peer', 'ours', way)}   (target: 1.4; the C loop has {limit})")
        print(f"{way:8} captured, peer / ours  {ratio('peer, captured', 'ours, captured', way)}   (target: 1.8)")
    print(f"p99/median: C loop {tail('C loop'):.2f}, ours {tail('ours'):.2f}   (target: at most twice)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--transfers", type=int, default=3000)
    parser.add_argument("--wake-ups", type=int, default=0, help="only so many transfers of 16 threads, such as 1000000")
    parser.add_argument("--unpinned", action="store_true", help="let the system choose processors")
    args = parser.parse_args()
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        if args.wake_ups:
            wake_ups(program, args.wake_ups)
            return
        peer = fetch_peer(folder)
        if peer is None:
            print(f"{PEER} cannot be installed: its columns are missing")
        pinned = {min(processors)} if processors and not args.unpinned else processors
        if pinned:
            os.sched_setaffinity(0, pinned)
        with serving(program) as port:
            report([one_round(program, port, args.transfers, peer) for _ in range(args.rounds)])
        if processors:
            os.sched_setaffinity(0, processors)
        report_threads(program, args.transfers * 4)
    times = late()
    print(f"time-outs are late by {statistics.median(times):.2f} ms, at most {max(times):.2f}   (target: 5)")


if __name__ == "__main__":
    main()
