"""How fast a serial port over USB/IP is: echoes near and far, bytes through it, time-outs, and another client.

    python bench/serial_port.py [seconds]

The server is a process of its own, on the loopback interface. serial-usbipclient 1.1.2, which needs py-datastruct<2, is
measured on the same server when it can be imported. Wanted: an echo within 2.5 round trips, 10 MB/s, time-outs
exact to 5 ms, 3 times serial-usbipclient. The exit status is 1 if anything is missed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import serial

from usbip_capture import SerialClient
from usbip_capture.server import Server
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.line import Loopback, Peer
from usbip_capture.urlhandler.registration import register
from usbip_capture.usb.info import Speed

LATENCY = 0.001
CHUNK = bytes(range(256)) * 16  # 4 KiB
ECHO, SINK, FAR = "1-1", "1-2", "1-3"
register(serial)


def serve() -> None:
    """Export an echo, a sink and a far echo until the input ends; print the port."""
    server = Server()
    for adapter in (
        acm(Loopback(), ECHO, serial="ECHO", speed=Speed.HIGH),
        acm(Peer(), SINK, (0x1209, 2, 0x0100), serial="SINK", speed=Speed.HIGH),
        acm(Loopback(), FAR, (0x1209, 3, 0x0100), serial="FAR", latency=LATENCY, speed=Speed.HIGH),
    ):
        server.add(adapter.info, adapter.open)
    print(server.listen("127.0.0.1", 0)[1], flush=True)
    sys.stdin.read()
    server.close()


def per_second(seconds: float, action: Callable[[], object]) -> float:
    """How often `action` runs in a second."""
    count, begun = 0, time.perf_counter()
    while (now := time.perf_counter()) - begun < seconds:
        action()
        count += 1
    return count / (now - begun)


def median_ms(rounds: int, action: Callable[[], object]) -> float:
    """How long `action` takes, in milliseconds."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def echo_far(port: int) -> bool:
    """An echo against the round trip of one URB, both 1 ms away."""
    with serial.serial_for_url(f"usbip://127.0.0.1:{port}/{FAR}", timeout=5) as far:

        def echo() -> None:
            far.write(b"x" * 16)
            assert len(far.read(16)) == 16

        def urb() -> None:
            far.write(b"x")
            far.flush()

        took = median_ms(300, echo)
        round_trip = median_ms(300, urb)
        far.reset_input_buffer()
    print(
        f"echo at {LATENCY * 1000:g} ms: {took:.2f} ms; one URB: {round_trip:.2f} ms; "
        f"{took / (LATENCY * 1000):.2f} times the latency (allowed 2.5)"
    )
    return took <= 2.5 * round_trip


def through(port: int, megabytes: int) -> bool:
    """4 KiB writes: into the sink, and through the echo and back."""
    rounds = megabytes * 1_000_000 // len(CHUNK)
    rates = []
    for device in (SINK, ECHO):
        with serial.serial_for_url(f"usbip://127.0.0.1:{port}/{device}", timeout=10) as opened:
            reader = threading.Thread(target=lambda opened=opened: opened.read(rounds * len(CHUNK)))
            begun = time.perf_counter()
            if device == ECHO:
                reader.start()
            for _ in range(rounds):
                opened.write(CHUNK)
            opened.flush()
            if device == ECHO:
                reader.join()
            rates.append(rounds * len(CHUNK) / (time.perf_counter() - begun) / 1e6)
    print(f"4 KiB writes: {rates[0]:.1f} MB/s out, {rates[1]:.1f} MB/s out and back (wanted 10)")
    return min(rates) >= 10


def exactness(port: int) -> bool:
    """How much later than asked reads and writes end."""
    late: list[float] = []
    with serial.serial_for_url(f"usbip://127.0.0.1:{port}/{ECHO}") as opened:
        for timeout in (0.001, 0.005, 0.02, 0.1) * 10:
            opened.timeout = timeout
            begun = time.perf_counter()
            opened.read(1)
            late.append(time.perf_counter() - begun - timeout)
    late.sort()
    median = late[len(late) // 2] * 1000
    print(f"reads end late by {median:.2f} ms (median), {late[-1] * 1000:.2f} ms (worst; allowed 5), never early")
    return median <= 5 and late[0] >= 0


def against_serial_usbipclient(port: int, seconds: float) -> bool:
    """The same work by both clients on the same server, in turn."""
    try:
        theirs_module = import_module("serial_usbipclient.usbip_client")
    except ImportError as error:
        print(f"serial-usbipclient was not measured: {error}")
        return True
    hardware_id = theirs_module.HardwareID
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    with SerialClient("127.0.0.1", port) as client:
        device = client.attach(SINK)
        ours["4 KiB writes/s"] = per_second(seconds, lambda: device.sendall(CHUNK))
        device.port.drain(10)
        other = client.attach(ECHO)

        def echo() -> None:
            other.sendall(b"x" * 62 + b"\r\n")
            assert len(other.response_data()) == 64

        ours["64-byte echoes/s"] = per_second(seconds, echo)
    foreign = theirs_module.USBIPClient(("127.0.0.1", port))
    foreign.connect_server()
    foreign.attach([hardware_id(0x1209, 2), hardware_id(0x1209, 1)])
    sink, echoing = (foreign.get_connection(hardware_id(0x1209, product))[0] for product in (2, 1))
    theirs["4 KiB writes/s"] = per_second(seconds, lambda: foreign.send(sink, CHUNK))

    def foreign_echo() -> None:
        foreign.send(echoing, b"x" * 62 + b"\r\n")
        assert len(echoing.response_data()) == 64

    theirs["64-byte echoes/s"] = per_second(seconds, foreign_echo)
    foreign.shutdown()
    good = True
    for name, rate in ours.items():
        ratio = rate / theirs[name]
        good = good and ratio >= 3
        print(f"{name}: {rate:.0f}, serial-usbipclient {theirs[name]:.0f}: {ratio:.1f} times (wanted 3)")
    return good


def main() -> int:
    """0 when all is as wanted."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    command = [sys.executable, __file__, "serve"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        results = [
            echo_far(port),
            through(port, 40),
            exactness(port),
            against_serial_usbipclient(port, seconds),
        ]
    finally:
        server.communicate("")
    return 0 if all(results) else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        sys.exit(main())
