"""Wireshark's queries against a bare start of the same interpreter, one after the other in each round.

Wireshark runs these several times at each start, and waits for each.

    python bench/extcap_queries.py [--rounds 40]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import usbip_capture
from usbip_capture.installation import placement

QUERIES = {
    "--extcap-interfaces": ["--extcap-interfaces", "--extcap-version=4.0"],
    "--extcap-dlts": ["--extcap-dlts", "--extcap-interface", "usbip-remote"],
    "--extcap-config": ["--extcap-config", "--extcap-interface", "usbip-remote"],
    "filter check": ["--extcap-capture-filter", "", "--extcap-interface", "usbip-remote"],
}


def timed(command: list[str]) -> float:
    """Milliseconds of a whole run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """Print medians, and the median of the ratios round by round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(usbip_capture.__file__).parents[1]
        extcap = placement.place(Path(folder), placement.launcher(sys.executable, library))
        commands = {name: [str(extcap), *query] for name, query in QUERIES.items()}
        commands = {"python -I -S -c pass": [sys.executable, "-I", "-S", "-c", "pass"], **commands}
        for command in commands.values():
            timed(command)      # writes the bytecode
        rounds = [{name: timed(command) for name, command in commands.items()} for _ in range(args.rounds)]
    bare = next(iter(commands))
    for name in commands:
        median = statistics.median(r[name] for r in rounds)
        ratio = statistics.median(r[name] / r[bare] for r in rounds)
        target = "" if name == bare else "   (target: at most 1.6)"
        print(f"{name:22} {median:6.1f} ms  {ratio:4.2f}{target}")


if __name__ == "__main__":
    main()
