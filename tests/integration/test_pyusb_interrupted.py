"""Programs that fork, or are interrupted, with a device in use. They run apart: their signals and exits are theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.loopback_device import LoopbackServer, loopback_server
from tests.oracles.pcapng_reader import read_capture

ROOT = Path(__file__).parents[2]
BEGIN = """\
import gc, os, signal, sys, threading, time
import usb.core
from usbip_capture import get_backend
backend = get_backend("127.0.0.1", int(sys.argv[1]), pcap="out.pcapng")
dev = usb.core.find(backend=backend)
dev.write(0x04, b"before")
dev.read(0x84, 64)
"""
FORK = """\
waiting = threading.Thread(target=lambda: print(bytes(dev.read(0x84, 64, 0))))
waiting.start()
child = os.fork()
if not child:
    try:
        dev.write(0x04, b"child")
    except usb.core.USBError as error:
        print(error.errno, flush=True)
    {end}
print(os.waitpid(child, 0)[1], flush=True)
dev.write(0x04, b"after")
waiting.join()
backend.close()
"""
INTERRUPT = """\
def interrupt():
    while not backend._source._opened:
        time.sleep(0.01)
    print(input(), flush=True)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
dev.set_interface_altsetting(3, 0)
dev.write(0x04, b"after")
print(bytes(dev.read(0x84, 64)))
backend.close()
"""


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with loopback_server() as opened:
        yield opened


def start(server: LoopbackServer, folder: Path, text: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + text, str(server.port)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("end", ["sys.exit()", "os._exit(0)", "backend.close(); del dev; gc.collect(); sys.exit()"])
def test_a_forked_child_leaves_its_parents_device_and_capture_alone(
    server: LoopbackServer, tmp_path: Path, end: str
) -> None:
    process = start(server, tmp_path, FORK.format(end=end))
    out, _ = process.communicate(timeout=30)
    assert out == "19\n0\nb'after'\n"
    data = [bytes(packet.data[64:]) for packet in read_capture(tmp_path / "out.pcapng")]
    assert [data.count(text) for text in (b"before", b"child", b"after")] == [2, 0, 2]
    assert len(server.devices) == 1


@pytest.mark.parametrize("call", ["dev.read(0x84, 64, 0)", "dev.read(0x84, 1 << 20, 0)"])
def test_an_interrupted_transfer_takes_nothing_from_the_next(server: LoopbackServer, tmp_path: Path, call: str) -> None:
    process = start(server, tmp_path, INTERRUPT.format(call=call))
    try:
        while not (server.devices and server.devices[-1].waits_for_data(0x84)):
            assert process.poll() is None
        out, _ = process.communicate("now\n", timeout=30)
    finally:
        process.kill()
        process.wait()
    assert out == "now\ninterrupted\nb'after'\n"
