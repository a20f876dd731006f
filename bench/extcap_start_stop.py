"""How long a capture takes to show its first packet, and to end: by a signal, and by a reader that goes while idle.

Times are of whole processes, from the start of the extcap; beside them the start of the bare interpreter.

    python bench/extcap_start_stop.py [--rounds 10]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import usbip_capture
from usbip_capture.demo.device import DemoServer
from usbip_capture.installation import placement
from usbip_capture.servers.address import ServerAddress

#: Bytes before the first packet: section header and interface description are shorter than this.
FIRST_PACKET = 400


def one_round(extcap: Path, folder: Path, port: int, end: str) -> tuple[float, float, float]:
    """Seconds to the first packet, from the end's cause to the end of the process, and until the device is free."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    listening = ["--listen-in", "off"] if end == "reader" else []
    options = ["--host", "127.0.0.1", "--port", str(port), "--fifo", str(fifo), *listening]
    start = time.perf_counter()
    command = [str(extcap), "--capture", "--extcap-interface", "usbip-remote", *options]
    with subprocess.Popen(command) as process:
        with open(fifo, "rb", buffering=0) as reader:
            size = 0
            while size < FIRST_PACKET:
                size += len(reader.read(65536))
            first = time.perf_counter() - start
            # By now it only listens, or does nothing at all; it looks for its reader ten times a second.
            time.sleep(0.3 + random.random() / 10)
            if process.poll() is not None:
                raise SystemExit("the capture has ended by itself")
            if end != "reader":
                process.send_signal(signal.SIGTERM)
                cause = time.perf_counter()
                while reader.read(65536):
                    pass
        if end == "reader":
            cause = time.perf_counter()
        process.wait()
        ended = time.perf_counter() - cause
        server = ServerAddress("127.0.0.1", port)
        while not server.devices():
            pass
        free = time.perf_counter() - cause
    fifo.unlink()
    return first, ended, free


def main() -> None:
    """Print medians and the worst of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = Path(usbip_capture.__file__).parents[1]
        extcap = placement.place(folder, placement.launcher(sys.executable, library))
        bare = []
        results: dict[str, list[tuple[float, float, float]]] = {"SIGTERM": [], "reader": []}
        for _ in range(args.rounds):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            bare.append(time.perf_counter() - start)
            for end, times in results.items():
                times.append(one_round(extcap, folder, port, end))
    server.close()
    first = [times[0] for ends in results.values() for times in ends]
    print(f"start of the bare interpreter    {statistics.median(bare):.3f} s")
    print(f"first packet in the pipe         {statistics.median(first):.3f} s, worst {max(first):.3f} (target: 1)")
    for end, what in (("SIGTERM", "stopped by SIGTERM"), ("reader", "reader gone while idle")):
        for index, until in ((1, "process ended"), (2, "device free")):
            times_of = [times[index] for times in results[end]]
            print(f"{what}: {until:14} {statistics.median(times_of):.3f} s, worst {max(times_of):.3f} (target: 0.5)")


if __name__ == "__main__":
    main()
