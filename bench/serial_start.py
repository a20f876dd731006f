"""What `usbip://` costs each start of Python: the line of its .pth file against a start without it.

    python bench/serial_start.py [rounds]

Prints the least and the median of many starts in turn, and their difference. At most 2 ms are allowed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PTH = ROOT / "usbip_capture" / "urlhandler" / "usbip-capture-serial.pth"
ALLOWED_MS = 2.0


def start(code: str) -> float:
    """Milliseconds of one start that runs `code`."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    return (time.perf_counter() - begun) * 1000


def main() -> int:
    """0 if the least difference is allowed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    with tempfile.TemporaryDirectory() as folder:
        for name, line in (("with", PTH.read_text()), ("without", "")):
            site = Path(folder, name)
            site.mkdir()
            (site / "usbip-capture-serial.pth").write_text(f"{ROOT}\n{line}")
        code = {name: f"import site; site.addsitedir({str(Path(folder, name))!r})" for name in ("with", "without")}
        times: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(rounds):
            for name, taken in times.items():
                taken.append(start(code[name]))
    least = {name: min(taken) for name, taken in times.items()}
    median = {name: statistics.median(taken) for name, taken in times.items()}
    for name in times:
        print(f"{name:8} least {least[name]:6.2f} ms  median {median[name]:6.2f} ms")
    cost = least["with"] - least["without"]
    difference = median["with"] - median["without"]
    print(f"cost     least {cost:6.2f} ms  median {difference:6.2f} ms  allowed {ALLOWED_MS:g} ms")
    return 0 if cost <= ALLOWED_MS else 1


if __name__ == "__main__":
    sys.exit(main())
