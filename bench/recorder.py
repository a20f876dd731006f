"""The recorder under load: what a URB costs its own thread, and how many packets a second reach a reader of a FIFO.

The reader is dumpcap, or cat where there is none. The reference, in the same run and to the same kind of reader, is a
bare loop that writes blocks which are packed already.

    python bench/recorder.py [--seconds 5] [--rate 150000]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from usbip_capture import PcapWriter
from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.sinks import Sink, open_sink
from usbip_capture.records.pcapng import Section
from usbip_capture.records.usbmon import UsbmonPacker
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.urb import Buffer, Completion, TransferType, Urb

INFO = DeviceInfo("1-1", 1, 2, Speed.HIGH, 0x1209, 0x0001)
URB = Urb(TransferType.INTERRUPT, 0x81, 8, interval=8)
DONE = Completion(0, 8, bytes(8))
#: URBs offered at a time, every so often: as a busy thread would, not in one block a second.
BURST_SECONDS = 0.005


def run(channel: UsbChannel, count: int) -> None:
    """Offer so many URBs: two packets each."""
    for _ in range(count):
        channel.completed(channel.submitted(URB), URB, DONE)


def producer_cost(urbs: int) -> float:
    """CPU microseconds of the caller's thread for a URB, a thousand at a time, the writer at work beside it."""
    costs = []
    with PcapWriter(os.devnull) as writer:
        channel = writer.add_usb_interface(INFO, server="bench")
        for _ in range(urbs // 1000):
            start = time.thread_time_ns()
            run(channel, 1000)
            costs.append((time.thread_time_ns() - start) / 1e6)
            writer.flush()
        assert not writer.dropped
    return statistics.median(costs)


@contextmanager
def reading(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """A FIFO that is read until it is closed; and where its packets are to be found afterwards."""
    fifo, copy = folder / "fifo", folder / "copy.pcapng"
    for path in (fifo, copy):
        path.unlink(missing_ok=True)
    os.mkfifo(fifo)
    dumpcap = shutil.which("dumpcap")
    cat = ["sh", "-c", 'cat >/dev/null <"$0"', str(fifo)]
    command = [dumpcap, "-q", "-i", str(fifo), "-w", str(copy)] if dumpcap else cat
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as reader:
        yield fifo, copy if dumpcap else None
        reader.wait(30)


def packets_in(capture: Path | None) -> int | None:
    """Counted by capinfos; None if that cannot be."""
    if capture is None or shutil.which("capinfos") is None:
        return None
    out = subprocess.run(["capinfos", "-Mrc", capture], check=True, capture_output=True, text=True).stdout
    return int(out.split("=")[-1].split(":")[-1])


def offered(folder: Path, seconds: float, rate: int) -> dict[str, float | None]:
    """Offer `rate` packets a second to a recorder."""
    with reading(folder) as (fifo, copy):
        writer = PcapWriter(fifo)
        channel = writer.add_usb_interface(INFO, server="bench")
        burst = int(rate * BURST_SECONDS / 2)
        start = time.perf_counter()
        cpu = time.process_time()
        for number in range(int(seconds / BURST_SECONDS)):
            time.sleep(max(start + number * BURST_SECONDS - time.perf_counter(), 0))
            run(channel, burst)
        took = time.perf_counter() - start
        writer.close()
        used = time.process_time() - cpu
    return {
        "offered": writer.received,
        "rate": writer.received / took,
        "dropped": writer.dropped,
        "written": writer.written,
        "read": packets_in(copy),
        "cpu": used / took,
    }


def flat_out(folder: Path, packets: int) -> float:
    """Packets a second through the recorder, offered as fast as it takes them without loss."""
    with reading(folder) as (fifo, _):
        writer = PcapWriter(fifo)
        channel = writer.add_usb_interface(INFO, server="bench")
        start = time.perf_counter()
        for _ in range(packets // 20_000):
            run(channel, 10_000)
        writer.flush()
        took = time.perf_counter() - start
        writer.close()
        assert not writer.dropped, "more was offered than the queue holds"
    return writer.written / took


def bare_loop(folder: Path, packets: int) -> float:
    """Packets a second of blocks that are packed already, written in the same portions."""
    section = Section(application="bench", hardware="", os="")
    blocks: list[Buffer] = []
    packer = UsbmonPacker(0, 262_144, 1, 2)
    for _ in range(128):
        packer.submit(blocks, time.time_ns(), 1, URB, b"")
        packer.complete(blocks, time.time_ns(), 1, URB, DONE)
    with reading(folder) as (fifo, _):
        sink: Sink = open_sink(fifo)
        sink.write([section.header(), section.interface(name="usbip0", description="", snaplen=262_144, speed=0)[1]])
        start = time.perf_counter()
        for _ in range(packets // len(blocks)):
            sink.write(blocks)
        took = time.perf_counter() - start
        sink.close()
    return packets // len(blocks) * len(blocks) / took


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=int, default=150_000, help="packets offered in a second")
    args = parser.parse_args()
    print(f"CPU of the caller's thread for a URB: {producer_cost(200_000):.2f} us   (target: at most 5)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"reader of the FIFO: {'dumpcap' if shutil.which('dumpcap') else 'cat'}")
        got = offered(folder, args.seconds, args.rate)
        read = "not counted" if got["read"] is None else f"{got['read']:.0f}"
        print(
            f"offered {got['offered']:.0f} packets in {args.seconds:g} s ({got['rate']:.0f}/s): "
            f"written {got['written']:.0f}, read {read}, dropped {got['dropped']:.0f}   (target: none)"
        )
        print(f"CPU of this process meanwhile, producer included: {got['cpu']:.2f} cores")
        rounds = [(bare_loop(folder, 200_000), flat_out(folder, 60_000)) for _ in range(5)]
    bare, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(o / b for b, o in rounds)
    print(f"flat out: recorder {ours:.0f} packets/s, bare loop of packed blocks {bare:.0f}/s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
