"""How long `usbip-capture serve` takes to listen, and from SIGTERM until every kernel driver is bound again.

libusb is simulated, with one device that a client has imported when the signal comes. Times are of whole processes;
beside them the start of the bare interpreter.

    python bench/serve_start_stop.py [--rounds 10]
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.fakes.raw_client import RawClient
from tests.programs.simulated_machine import BUSID, Machine, environment

START_GOAL, STOP_GOAL = 0.5, 1.0


def one_round(folder: Path) -> tuple[float, float]:
    """Seconds to the first sentence about an address, and from SIGTERM to the end of the process."""
    machine = Machine(folder)
    command = [sys.executable, "-m", "usbip_capture.cli.main", "serve", "--device", BUSID, "--listen", "127.0.0.1:0"]
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        port = 0
        while not port:
            line = process.stderr.readline()
            if not line:
                raise SystemExit("the server has ended by itself")
            if "127.0.0.1:" in line:
                port = int(line.split("127.0.0.1:")[1].split()[0].strip(".,;:"))
        started = time.perf_counter() - began
        client = RawClient(("127.0.0.1", port), BUSID)
        if client.status:
            raise SystemExit("the device is not lent")
        process.send_signal(signal.SIGTERM)
        cause = time.perf_counter()
        process.stderr.read()
        process.wait()
        stopped = time.perf_counter() - cause
    client.close()
    machine.close()
    if not any("attach" in call for call in machine.calls):
        raise SystemExit("the kernel's drivers are not bound again")
    return started, stopped


def main() -> None:
    """Print medians and the worst over all rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    rounds, bare = [], []
    for _ in range(args.rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", ""], check=True)
        bare.append(time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(one_round(Path(folder)))
    print(f"the interpreter alone: {statistics.median(bare):.3f} s")
    for name, goal, times in zip(("start", "stop"), (START_GOAL, STOP_GOAL), zip(*rounds, strict=True), strict=True):
        print(f"{name}: {statistics.median(times):.3f} s, at most {max(times):.3f} (goal {goal:g})")


if __name__ == "__main__":
    main()
