"""The relay, its capture on, against socat in between: same C client, same C server, in one run.

Each round runs socat and the relay one after the other, so that ratios hold while the machine's speed drifts.

    python bench/relay.py [--rounds 7] [--transfers 8000] [--blocks 3000] [--one-processor]

On few processors that sleep between messages, above all virtual ones, where the scheduler puts which process decides
more than what the processes do: medians of socat alone differ by a factor of three from run to run. With all on one
processor nothing has to be woken, and the ratios are those of the work. They are worse for the relay then, as nothing
of what it does beside forwarding is hidden.

Without socat (Debian's package of that name) there is nothing to compare with.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

BLOCK = 65536
_CODE = "from usbip_capture.cli.main import main; import sys; sys.exit(main())"


def build(folder: Path) -> Path:
    """The C program beside this file, compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SystemExit("no C compiler here: this benchmark needs a C client and server")
    program = folder / "peer"
    subprocess.run([compiler, "-O2", "-Wall", "-o", program, Path(__file__).with_name("peer.c")], check=True)
    return program


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def socat(server: int, size: int | None = None) -> Iterator[int]:
    """socat with TCP_NODELAY, and a larger buffer if asked for; its port."""
    port = free_port()
    buffer = [] if size is None else ["-b", size]
    listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay"
    with running("socat", *buffer, listen, f"TCP:127.0.0.1:{server},nodelay"):
        wait_listening(port)
        yield port


class Relay:
    """The relay as a person starts it, its capture into `output`."""

    def __init__(self, server: int, output: Path, stack: ExitStack, *, reads: bool = True) -> None:
        self.port = free_port()
        if not reads:
            os.mkfifo(output)
            stack.callback(os.close, os.open(output, os.O_RDWR))  # open, and nobody reads
        command = [sys.executable, "-c", _CODE, "relay", f"127.0.0.1:{server}", "--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen([*command, "-o", str(output)], stderr=subprocess.PIPE, text=True)
        stack.callback(self.process.kill)
        wait_listening(self.port)

    def memory_mib(self) -> float:
        """The most that it has had."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self) -> str:
        """End it; its report on its capture."""
        self.process.terminate()
        _, output = self.process.communicate(timeout=60)
        return next((line for line in output.splitlines() if "packets" in line), output)


def wait_listening(port: int) -> None:
    """Until somebody listens there."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def latency(peer: Path, port: int, transfers: int) -> tuple[float, float]:
    """Median and p99 of a control transfer, in microseconds."""
    out = subprocess.run([peer, "client", str(port), str(transfers)], check=True, capture_output=True, text=True)
    times = [int(line) / 1000 for line in out.stdout.split()]
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def throughput(peer: Path, port: int, blocks: int, depth: int, devices: int = 1) -> float:
    """MB/s of bulk IN, of all devices together."""
    command = [str(peer), "stream", str(port), str(blocks), str(BLOCK), str(depth)]
    start = time.perf_counter()
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(devices)]
    times = [int(process.communicate()[0]) for process in processes]
    elapsed = max(times) / 1e9 if devices == 1 else time.perf_counter() - start
    return devices * blocks * BLOCK / elapsed / 1e6


def compare(name: str, unit: str, rounds: list[tuple[float, float]], target: str) -> None:
    """Medians of (socat, relay), and of their ratio."""
    reference = statistics.median(first for first, _ in rounds)
    ours = statistics.median(second for _, second in rounds)
    ratio = statistics.median(second / first for first, second in rounds)
    print(f"{name:34} socat {reference:8.1f} {unit}   relay {ours:8.1f} {unit}   ratio {ratio:.2f}   ({target})")


def main() -> None:
    """Print medians over the rounds, and ratios round by round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--transfers", type=int, default=8000)
    parser.add_argument("--blocks", type=int, default=3000)
    parser.add_argument("--one-processor", action="store_true")
    args = parser.parse_args()
    if args.one_processor:
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # and all that is started here
    if shutil.which("socat") is None:
        raise SystemExit("socat is not installed: apt-get install socat")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        peer = build(Path(name))
        process = stack.enter_context(running(peer, "serve"))
        assert process.stdout is not None
        server = int(process.stdout.readline())
        small, large = stack.enter_context(socat(server)), stack.enter_context(socat(server, 262144))
        relay = Relay(server, Path("/dev/null"), stack)
        measure_small(peer, small, relay.port, args.rounds, args.transfers)
        for depth, target in ((1, "at least 0.8"), (4, "at least 0.55")):
            found = [
                (throughput(peer, large, args.blocks, depth), throughput(peer, relay.port, args.blocks, depth))
                for _ in range(args.rounds)
            ]
            compare(f"64 KiB bulk, {depth} in flight", "MB/s", found, target)
        print(f"  {relay.stop()}")
        measure_stalled(peer, server, large, args.rounds, args.blocks, Path(name), stack)
        measure_many(peer, server, args.rounds, args.blocks, stack)


def measure_small(peer: Path, small: int, relay: int, rounds: int, transfers: int) -> None:
    """A small URB, the next one when it is back."""
    found = [(latency(peer, small, transfers), latency(peer, relay, transfers)) for _ in range(rounds)]
    medians = [(first[0], second[0]) for first, second in found]
    compare("18-byte control transfer, median", "us", medians, "at most 1.2")
    compare("18-byte control transfer, p99", "us", [(first[1], second[1]) for first, second in found], "at most 2")


def measure_stalled(
    peer: Path, server: int, large: int, rounds: int, blocks: int, folder: Path, stack: ExitStack
) -> None:
    """Nobody reads the capture."""
    relay = Relay(server, folder / "stalled", stack, reads=False)
    for depth in (1, 4):
        found = [
            (throughput(peer, large, blocks, depth), throughput(peer, relay.port, blocks, depth)) for _ in range(rounds)
        ]
        compare(f"capture stalled, {depth} in flight", "MB/s", found, "the same or better")
    print(f"  most memory {relay.memory_mib():.0f} MiB; {relay.stop()}")


def measure_many(peer: Path, server: int, rounds: int, blocks: int, stack: ExitStack) -> None:
    """Eight devices stream at once."""
    relay = Relay(server, Path("/dev/null"), stack)
    found = [
        (throughput(peer, relay.port, blocks, 4), throughput(peer, relay.port, blocks // 2, 4, 8))
        for _ in range(rounds)
    ]
    one, eight = statistics.median(f[0] for f in found), statistics.median(f[1] for f in found)
    ratio = statistics.median(f[1] / f[0] for f in found)
    print(f"8 devices at once: {eight:.0f} MB/s, one alone {one:.0f} MB/s, ratio {ratio:.2f} (at least 0.8)")
    print(f"  most memory {relay.memory_mib():.0f} MiB; {relay.stop()}")


if __name__ == "__main__":
    main()
