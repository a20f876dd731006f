"""Wireshark's queries against a bare start of the same interpreter, one after the other in each round.

Wireshark runs these several times at each start, once for each interface, and for each key pressed in the filter box;
and waits for each. Then tshark's own list of interfaces, with our plug-in and without.

    python bench/extcap_queries.py [--rounds 40]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from usbip_capture.installation import placement

INTERFACE = ["--extcap-interface", "usbip-remote"]
#: Query, target for its ratio.
QUERIES = {
    "--extcap-interfaces": (["--extcap-interfaces", "--extcap-version=4.0"], 1.6),
    "--extcap-dlts": (["--extcap-dlts", *INTERFACE], 1.6),
    "--extcap-config": (["--extcap-config", *INTERFACE], 1.6),
    "filter check": (["--extcap-capture-filter", "bulk and ep == 0x81 or not class == hid", *INTERFACE], 2.5),
}
#: How many are known; with the most of them there is a lab of as many places.
INTERFACES = (1, 4, 16, 200)
COORDINATOR = "lab.example"
BARE = "python -I -S -c pass"


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Milliseconds of a whole run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return (time.perf_counter() - start) * 1000


def environment_with(home: Path, interfaces: int) -> dict[str, str]:
    """Variables for a home of its own in which so many interfaces are known."""
    servers = ",".join(f"server-{number}" for number in range(1, interfaces))
    found = {**os.environ, "HOME": str(home), "USBIP_CAPTURE_SERVERS": servers, "USBIP_CAPTURE_DISCOVERY": "off"}
    found.pop("LG_COORDINATOR", None)
    if interfaces == max(INTERFACES):
        found["LG_COORDINATOR"] = COORDINATOR
        cache = home / ".cache/usbip-capture"
        cache.mkdir(parents=True, exist_ok=True)
        places = (f"place\tplace-{number}\tusb\tplace-{number}\n" for number in range(interfaces))
        (cache / "places").write_text(f"coordinator\t{COORDINATOR}\n{''.join(places)}")
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "WIRESHARK_EXTCAP_DIR"):
        found.pop(name, None)
    return found


def compare(commands: dict[str, tuple[list[str], dict[str, str]]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median in ms, and median of the ratios to the first command round by round."""
    for command in commands.values():
        timed(*command)  # writes the bytecode, fills the disk cache
    runs = [{name: timed(*command) for name, command in commands.items()} for _ in range(rounds)]
    first = next(iter(commands))
    return {
        name: (statistics.median(run[name] for run in runs), statistics.median(run[name] / run[first] for run in runs))
        for name in commands
    }


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        library = Path(__file__).resolve().parents[1]
        text = placement.launcher(sys.executable, library)
        extcap = placement.place(home / ".config/wireshark/extcap", text)
        placement.place(home / ".local/lib/wireshark/extcap", text)
        for interfaces in INTERFACES:
            environment = environment_with(home, interfaces)
            commands = {BARE: ([sys.executable, "-I", "-S", "-c", "pass"], environment)}
            commands.update({name: ([str(extcap), *query], environment) for name, (query, _) in QUERIES.items()})
            print(f"{interfaces} known")
            for name, (median, ratio) in compare(commands, args.rounds).items():
                target = f"   (target: at most {QUERIES[name][1]})" if name in QUERIES else ""
                print(f"  {name:22} {median:6.1f} ms  {ratio:4.2f}{target}")
        tshark = shutil.which("tshark")
        if tshark:
            away = Path(folder) / "away"
            away.mkdir()
            starts = {"without us": ([tshark, "-D"], environment_with(away, 1))}
            for interfaces in INTERFACES:
                starts[f"with {interfaces}"] = ([tshark, "-D"], environment_with(home, interfaces))
            print("tshark -D")
            for name, (median, ratio) in compare(starts, max(args.rounds // 4, 3)).items():
                print(f"  {name:22} {median:6.1f} ms  {ratio:4.2f}")


if __name__ == "__main__":
    main()
