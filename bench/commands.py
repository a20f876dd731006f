"""How long `usbip-capture` takes: its start, a list, and from an announcement to the line that `discover` prints.

The start is measured against `python -c pass`, one after the other in each round; the server of `list` is the demo
behind a relay that holds each portion back for a millisecond; the announcement is seen by a socket of our own.

    python bench/commands.py [--rounds 30]
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from usbip_capture.demo.device import DemoServer

_DELAY = 0.001
_MDNS = ("224.0.0.251", 5353)
COMMAND = [sys.executable, "-m", "usbip_capture.cli.main"]


def environment(folder: str) -> dict[str, str]:
    """A configuration and a cache of its own."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder}


def timed(command: list[str], env: dict[str, str]) -> float:
    """Milliseconds of a whole run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=env)
    return (time.perf_counter() - start) * 1000


def relay(port: int) -> int:
    """Forwards to `port` with a delay each way; the port to connect to."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            time.sleep(_DELAY / 2)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=_quietly, args=(pump, pair), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def _quietly(pump: Callable[[socket.socket, socket.socket], None], pair: tuple[socket.socket, socket.socket]) -> None:
    try:
        pump(*pair)
    except OSError:
        pass


def starts(rounds: int, env: dict[str, str]) -> None:
    """`--version` and `list` against a bare Python."""
    server = DemoServer()
    _, port = server.listen("127.0.0.1", 0)
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "usbip-capture --version": [*COMMAND, "--version"],
        "usbip-capture list, 1 ms away": [*COMMAND, "list", f"127.0.0.1:{relay(port)}"],
    }
    for command in commands.values():
        timed(command, env)  # writes the bytecode, fills the disk cache
    runs = [{name: timed(command, env) for name, command in commands.items()} for _ in range(rounds)]
    for name in commands:
        median = statistics.median(run[name] for run in runs)
        ratio = statistics.median(run[name] / run["python -c pass"] for run in runs)
        print(f"{name:32} {median:6.1f} ms  {ratio:5.2f} times python -c pass")
    server.close()


def discovery(rounds: int, env: dict[str, str]) -> None:
    """From the first answer on the network to the line that is printed."""
    from zeroconf import ServiceInfo, Zeroconf

    delays = []
    for number in range(rounds):
        command = [*COMMAND, "discover", "--timeout", "4"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL, env=env)
        name = f"bench {number}-{os.getpid()}"
        heard = _listen(name.encode())
        time.sleep(1)  # until it looks
        zeroconf = Zeroconf()
        address = socket.inet_aton("192.0.2.1")
        info = ServiceInfo(
            "_usbip._tcp.local.", f"{name}._usbip._tcp.local.", 3240, addresses=[address], server="b.local."
        )
        registering = threading.Thread(target=zeroconf.register_service, args=(info,))  # which takes its time
        registering.start()
        assert process.stdout is not None
        for line in process.stdout:
            if name.encode() in line:
                delays.append((time.monotonic() - heard[0]) * 1000)
                break
        process.kill()
        process.communicate()
        registering.join()
        zeroconf.close()
    if delays:
        worst = max(delays)
        print(f"{'discover, from answer to line':32} {statistics.median(delays):6.1f} ms  at most {worst:.1f} ms")


def _listen(name: bytes) -> list[float]:
    """Gets the time of the first response with `name` in it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("", _MDNS[1]))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4sl", socket.inet_aton(_MDNS[0]), 0))
    heard: list[float] = []

    def wait() -> None:
        with sock:
            while not heard:
                data = sock.recv(9000)
                if data[2] & 0x80 and name in data:
                    heard.append(time.monotonic())

    threading.Thread(target=wait, daemon=True).start()
    return heard


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        starts(rounds, environment(folder))
        discovery(max(rounds // 6, 1), environment(folder))


if __name__ == "__main__":
    main()
