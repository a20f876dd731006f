"""How long a client takes to attach while another address floods the server: beside the same without the flood.

The server is a process of its own, with a device of the demo. One address keeps 1 000 idle connections, as far as they
are left to it, and connects again for each that is closed; another one, whom no rule allows, connects 10 000 times a
minute. A client of a third address attaches, by turns with the flood and without it. All are addresses of loopback.

    python bench/flood.py [--rounds 12] [--seconds 0.8] [--relay]

Exit code 1 if attaching takes 1.2 times as long, or the server holds more descriptors or memory than it should.
"""

from __future__ import annotations

import argparse
import resource
import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

from usbip_capture.access.limits import Limits
from usbip_capture.demo.device import BUSID, INFO, DemoDevice
from usbip_capture.net.listening import NOT_ALLOWED, Peer
from usbip_capture.relay.relay import Relay
from usbip_capture.server import ALLOWED, Access, Decision, Server
from usbip_capture.servers.address import ServerAddress
from usbip_capture.wire import structs
from usbip_capture.wire.structs import OpStatus

SERVER, IDLE, REFUSED, CLIENT = "127.0.0.1", "127.0.0.2", "127.0.0.4", "127.0.0.3"
IDLE_COUNT, REFUSED_PER_SECOND = 1000, 10_000 / 60
#: The goals: times as long, descriptors, MiB more than before the flood.
MOST_TIMES, MOST_DESCRIPTORS, MOST_MEMORY = 1.2, 300, 32.0
#: Descriptors of a relay: 256 clients, with two each.
MOST_OF_RELAY = 512
#: Attachments of the client in a second.
ATTACHMENTS = 50
REQUEST = structs.OP_COMMON.pack(0x111, structs.OP_REQ_IMPORT, 0) + structs.pack_busid(BUSID)
REPLY_SIZE = 320


class BusyError(Exception):
    """The last attachment is still about to end: nobody keeps this one out."""


class Denying(Access):
    """As a rule would."""

    def may_connect(self, peer: Peer) -> Decision:
        return Decision(allowed=False, reason=NOT_ALLOWED) if peer.host == REFUSED else ALLOWED


def serve(relayed: bool) -> None:
    """Until standard input ends; the port is on standard output."""
    with closing(Server(Denying(), limits=Limits())) as server:
        server.add(INFO, DemoDevice)
        port = server.listen(SERVER, 0)[1]
        relay = Relay(ServerAddress(SERVER, port), SERVER, 0) if relayed else None
        print(relay.port if relay is not None else port, flush=True)
        sys.stdin.read()
        if relay is not None:
            relay.close()


class Flood:
    """Both addresses that flood, on two threads of a process of their own."""

    def __init__(self, port: int, rate: float) -> None:
        self.refused = 0
        self._address = (SERVER, port)
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._idle, args=(rate,)),
            threading.Thread(target=self._refused),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """It is over when this returns."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _idle(self, rate: float) -> None:
        """Up to IDLE_COUNT connections; at most `rate` new ones in a second."""
        held: set[socket.socket] = set()
        while not self._ended.wait(0.05):
            gone = select.poll()
            by_number = {sock.fileno(): sock for sock in held}
            for number in by_number:
                gone.register(number, select.POLLIN)
            for number, _ in gone.poll(0):
                held.discard(by_number[number])
                by_number[number].close()
            for _ in range(min(IDLE_COUNT - len(held), int(rate * 0.05))):
                with suppress(OSError):
                    held.add(socket.create_connection(self._address, 5, (IDLE, 0)))
        for sock in held:
            sock.close()

    def _refused(self) -> None:
        due = time.monotonic()
        while not self._ended.wait(max(due - time.monotonic(), 0)):
            due += 1 / REFUSED_PER_SECOND
            with suppress(OSError):
                socket.create_connection(self._address, 5, (REFUSED, 0)).close()
            self.refused += 1


def flood(port: int, rate: float) -> None:
    """Until standard input ends."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, max(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    with closing(Flood(port, rate)) as running:
        print("flooding", flush=True)
        sys.stdin.read()
    print(running.refused, flush=True)


def attach(port: int) -> float:
    """Import the device: milliseconds. The next one is free to come when this returns."""
    with socket.socket() as sock:
        sock.settimeout(10)
        sock.bind((CLIENT, 0))
        start = time.perf_counter()
        sock.connect((SERVER, port))
        sock.sendall(REQUEST)
        got = b""
        while len(got) < REPLY_SIZE:
            data = sock.recv(REPLY_SIZE - len(got))
            if not data:
                raise BusyError if got[7:8] == bytes([OpStatus.DEV_BUSY]) else ConnectionError("it is refused")
            got += data
        taken = (time.perf_counter() - start) * 1e3
        sock.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            sock.recv(1)
    return taken


def attachments(port: int, seconds: float) -> tuple[list[float], int]:
    """Milliseconds of each, and how many failed."""
    found, failed, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(1 / ATTACHMENTS)
        try:
            found.append(attach(port))
        except BusyError:
            continue
        except OSError:
            failed += 1
    return found, failed


def held(pid: int) -> tuple[int, float, int]:
    """Descriptors, MiB of memory, threads of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    memory = int(status["VmRSS"].split()[0]) / 1024
    return len(list(Path(f"/proc/{pid}/fd").iterdir())), memory, int(status["Threads"])


def child(*arguments: str) -> subprocess.Popen[str]:
    """This program as a process."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    """What it has printed last."""
    return process.communicate()[0]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.8, help="of each part of a round")
    parser.add_argument("--rate", type=float, default=100.0, help="new idle connections in a second")
    parser.add_argument("--relay", action="store_true", help="through a relay in the server's process")
    parser.add_argument("--as", dest="role", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        serve(args.relay) if args.role == ["server"] else flood(int(args.role[1]), args.rate)
        return
    server = child("--as", "server", *(["--relay"] if args.relay else []))
    assert server.stdout is not None
    port = int(server.stdout.readline())
    attachments(port, 0.5)
    before = most = held(server.pid)
    quiet: list[float] = []
    flooded: list[float] = []
    ratios: list[float] = []
    failures = refused = 0
    for _ in range(args.rounds):
        times, failed = attachments(port, args.seconds)
        quiet += times
        failures += failed
        flooding = child("--as", "flood", str(port), "--rate", str(args.rate))
        assert flooding.stdout is not None
        flooding.stdout.readline()
        time.sleep(0.5)
        before_flood = statistics.median(times)
        times, failed = attachments(port, args.seconds)
        ratios.append(statistics.median(times) / before_flood)
        flooded += times
        failures += failed
        most = max(most, held(server.pid))
        refused += int(ended(flooding))
        time.sleep(0.3)
    after = held(server.pid)
    ended(server)
    times_as_long = statistics.median(ratios)  # of rounds, as the machine's speed drifts
    for name, times in (("quiet", quiet), ("flooded", flooded)):
        worst = sorted(times)[int(len(times) * 0.99)]
        print(f"{name:8} {len(times):5} attachments, median {statistics.median(times):6.3f} ms, 99 % {worst:6.3f} ms")
    print(f"{times_as_long:.2f} times as long; {failures} failed; {refused} connections were refused by a rule")
    for name, (descriptors, memory, threads) in (("before", before), ("flooded", most), ("after", after)):
        print(f"{name:8} {descriptors:5} descriptors, {memory:6.1f} MiB, {threads:4} threads")
    allowed = MOST_DESCRIPTORS + (MOST_OF_RELAY if args.relay else 0)
    bad = times_as_long >= MOST_TIMES or most[0] > allowed or most[1] - before[1] > MOST_MEMORY or failures
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
