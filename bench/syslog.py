"""The log under load: messages a second on one core, how soon one is in the file, and what a flood costs USB.

The references, in the same run: a bare loop that reads the same stream into a file without looking at it, and the
latency of control transfers without a flood. Sender and USB server are processes of their own.

    python bench/syslog.py [--messages 300000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from usbip_capture import PcapWriter, SyslogReceiver
from usbip_capture.capture.sinks import FileSink
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.tap import Tapped
from usbip_capture.usb.urb import Buffer, Urb

#: What is in single messages, and not in those of a flood.
MARK = b"a single message"
SETUP = bytes.fromhex("8006000100001200")

#: Sends so many messages at such a rate (0: as fast as they are taken) to each who connects, as an ESP32 bridge does.
SENDER = """
import socket, sys, time
count, rate = int(sys.argv[1]), int(sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
text = "state: run -> init (0x0), reason 12, rssi -50 dB, channel 6"
def frame(n):
    message = f"<14>1 2000-01-01T00:{n // 60000 % 60:02}:{n // 1000 % 60:02}.{n % 1000:03}Z esp32 esp - - - " \\
              f"I ({n}) wifi: {text}\\n".encode()
    return b"%d %s" % (len(message), message)
burst = 100
blocks = [b"".join(frame(n) for n in range(start, start + burst)) for start in range(0, 10_000, burst)]
while True:
    sock, _ = listener.accept()
    try:
        begin = time.perf_counter()
        for number in range(count // burst):
            if rate:
                time.sleep(max(begin + number * burst / rate - time.perf_counter(), 0))
            sock.sendall(blocks[number % len(blocks)])
    except OSError:
        pass
    sock.close()
"""


class Sending:
    """A sender in a process of its own, as a context; `port` is where it waits."""

    def __init__(self, messages: int, rate: int = 0) -> None:
        command = [sys.executable, "-c", SENDER, str(messages), str(rate)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> Sending:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def bare_loop(port: int, target: Path) -> tuple[float, float]:
    """Seconds, and CPU seconds, to move the stream into a file."""
    with socket.create_connection(("127.0.0.1", port)) as sock, target.open("wb", buffering=0) as file:
        start, cpu = time.perf_counter(), time.process_time()
        while data := sock.recv(256 << 10):
            file.write(data)
        return time.perf_counter() - start, time.process_time() - cpu


def captured(port: int, target: Path, messages: int) -> tuple[float, float]:
    """The same through SyslogReceiver and PcapWriter."""
    with PcapWriter(target) as pcap:
        start, cpu = time.perf_counter(), time.process_time()
        receiver = SyslogReceiver("127.0.0.1", port, pcap, callback=_nothing)
        receiver.start()
        while receiver.counts.messages < messages:
            time.sleep(0.005)
        pcap.flush()
        took = time.perf_counter() - start, time.process_time() - cpu
        receiver.stop()
    assert (pcap.received, pcap.dropped) == (messages, 0), (pcap.received, pcap.dropped)
    return took


class TimedSink(FileSink):
    """Keeps when the write was over that has MARK."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.done = threading.Event()
        self.last_ns = 0

    def write(self, buffers: list[Buffer]) -> None:  # type: ignore[override]
        super().write(buffers)
        now = time.time_ns()
        if any(MARK in bytes(buffer) for buffer in buffers):
            self.last_ns = now
            self.done.set()


def arrival_to_disk(target: Path, messages: int, flood_port: int | None) -> list[float]:
    """Milliseconds from sending single messages to the end of the write that has them, perhaps beside a flood."""
    sink = TimedSink(str(target))
    found = []
    with socket.create_server(("127.0.0.1", 0)) as listener, PcapWriter(sink) as pcap:
        receiver = SyslogReceiver("127.0.0.1", listener.getsockname()[1], pcap, callback=_nothing)
        receiver.start()
        other = SyslogReceiver("127.0.0.1", flood_port, pcap, callback=_nothing) if flood_port else None
        if other is not None:
            other.start()
        sock, _ = listener.accept()
        with sock:
            pcap.flush()
            for _ in range(messages):
                time.sleep(0.03)
                sink.done.clear()
                sent_ns = time.time_ns()
                sock.sendall(b"<14>" + MARK + b"\n")
                sink.done.wait()
                found.append((sink.last_ns - sent_ns) / 1e6)
            receiver.stop()
            if other is not None:
                other.stop()
    return found


def usb_latency(target: Path, transfers: int, log_port: int | None) -> list[float]:
    """Microseconds of control transfers that are captured, with the log beside them if there is a port."""
    command = [sys.executable, "-m", "usbip_capture.cli.main", "demo", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().partition(", until")[0].rpartition(":")[2])
        with PcapWriter(target) as pcap:
            receiver = SyslogReceiver("127.0.0.1", log_port, pcap, callback=_nothing) if log_port else None
            device = ServerAddress("127.0.0.1", port, 2.0).import_device(Selector("1-1"))
            tapped = Tapped(device, pcap.add_usb_interface(device.info, server="bench"))
            if receiver is not None:
                receiver.start()
                time.sleep(0.2)
            times, clock = [], time.perf_counter_ns
            for _ in range(transfers):
                start = clock()
                completion = tapped.run(Urb.control(SETUP), 5.0)
                times.append((clock() - start) / 1000)
                assert len(completion.data) == 18, completion
            device.close()
            if receiver is not None:
                receiver.stop()
        server.kill()
    return times


def _nothing(message: object) -> None:
    """Messages go into the capture only."""


def throughput(folder: Path, rounds: int, messages: int) -> None:
    """Print messages a second, ours and the reference's."""
    found = []
    with Sending(messages) as sender:
        for _ in range(rounds):
            bare = bare_loop(sender.port, folder / "bare")
            found.append((bare, captured(sender.port, folder / "out.pcapng", messages)))
    wall = statistics.median(messages / ours[0] for _, ours in found)
    core = statistics.median(messages / ours[1] for _, ours in found)
    bare_core = statistics.median(messages / bare[1] for bare, _ in found)
    print(
        f"parsed and captured: {wall:,.0f} messages/s, {core:,.0f}/s of CPU time   (target: 100,000, compiled 250,000)"
    )
    print(f"bare loop, stream to file unparsed: {bare_core:,.0f}/s of CPU time")


def disk(folder: Path, flood_port: int | None) -> None:
    """Print how soon a message is in the file."""
    delays = arrival_to_disk(folder / "out.pcapng", 100, flood_port)
    beside = ", beside a flood of 50,000 messages/s" if flood_port else ""
    print(
        f"arrival to disk{beside}: median {statistics.median(delays):.1f} ms, worst of {len(delays)} "
        f"{max(delays):.1f} ms   (target: under 50 ms)"
    )


def flood(folder: Path, rounds: int, rate: int, transfers: int) -> None:
    """Print the latency of USB without and with a flood of `rate` messages a second."""
    ratios, quiet_medians, loud_medians, quiet_99, loud_99 = [], [], [], [], []
    for _ in range(rounds):
        with Sending(1_000_000_000, rate) as sender:
            quiet = usb_latency(folder / "quiet.pcapng", transfers, None)
            loud = usb_latency(folder / "loud.pcapng", transfers, sender.port)
        quiet_medians.append(statistics.median(quiet))
        loud_medians.append(statistics.median(loud))
        quiet_99.append(statistics.quantiles(quiet, n=100)[98])
        loud_99.append(statistics.quantiles(loud, n=100)[98])
        ratios.append(loud_medians[-1] / quiet_medians[-1])
    speed = f"{rate:,} messages/s" if rate else "as fast as it is taken"
    print(
        f"USB latency, flood of {speed}: median {statistics.median(loud_medians):.0f} us against "
        f"{statistics.median(quiet_medians):.0f} us, ratio {statistics.median(ratios):.2f}   (target: at most 1.2); "
        f"p99 {statistics.median(loud_99):.0f} against {statistics.median(quiet_99):.0f} us"
    )


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    logging.getLogger("usbip_capture").setLevel(logging.ERROR)  # each sender's end is a warning
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        throughput(folder, args.rounds, args.messages)
        disk(folder, None)
        with Sending(1_000_000_000, 50_000) as sender:
            disk(folder, sender.port)
        for rate in (1_000, 10_000, 50_000, 0):
            flood(folder, args.rounds, rate, 30_000)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    main()
