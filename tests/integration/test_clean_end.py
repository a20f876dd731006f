"""A session that its client ends is no loss of the device: in the client's own capture as in that of an observer."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import usb.core

from tests.oracles.pcapng_reader import read_capture
from tests.programs.usbip_ports import environment
from tests.waiting import wait_until
from usbip_capture import PcapWriter, get_backend
from usbip_capture.demo import device as demo
from usbip_capture.demo.device import BULK_IN, DemoDevice, DemoServer
from usbip_capture.devices.remote import RemoteDevice
from usbip_capture.host.source import ServerSource
from usbip_capture.relay.relay import Relay
from usbip_capture.serial_port.client import SerialClient
from usbip_capture.servers.address import ServerAddress
from usbip_capture.tap import Tapped
from usbip_capture.usb.status import ECONNRESET

pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")
TIMEOUT = 20.0


@contextmanager
def observed(capture: Path) -> Iterator[int]:
    """The port of a relay to the demo device; the capture is what the relay sees."""
    with closing(DemoServer()) as server:
        server.add(demo.INFO, DemoDevice)
        relay = Relay(ServerAddress(*server.listen("127.0.0.1", 0)), port=0)
        try:
            with PcapWriter(capture) as writer:
                tap = relay.capture(writer)
                yield relay.port
                wait_until("the client is gone", lambda: not relay.clients)
                relay.end_capture(tap)
        finally:
            relay.close()


def endings(capture: Path) -> list[tuple[int, int]]:
    """Endpoint and status of each URB without a good end, sorted; no comment reports that the device is gone.

    Without those whose reply has crossed the CMD_UNLINK, which the client has and an observer calls unlinked.
    """
    found = []
    for record in read_capture(capture):
        assert not [text for text in record.comments if "device gone" in text]
        usb = record.usb
        if usb is not None and chr(usb.type) == "C" and usb.status and not usb.length:
            found.append((usb.epnum, usb.status))
    return sorted(found)


def serial_port(port: int, capture: Path) -> None:
    import serial

    with serial.serial_for_url(f"usbip://127.0.0.1:{port}/1-1?pcap={capture}", timeout=TIMEOUT) as opened:
        assert opened.read(1)


def serial_client(port: int, capture: Path) -> None:
    with SerialClient("127.0.0.1", port, pcap=str(capture)) as client:
        assert client.attach().response_data(1, TIMEOUT)


def reads_in_flight(port: int, capture: Path) -> None:
    backend = get_backend("127.0.0.1", port, pcap=capture)
    dev = usb.core.find(backend=backend)
    dev.set_configuration()
    errors: list[str] = []

    def read(timeout: int) -> None:
        for _ in range(2):  # what is asked for afterwards was never on the wire
            with pytest.raises(usb.core.USBError) as caught:
                dev.read(BULK_IN, 64, timeout)
            errors.append(str(caught.value))

    threads = [threading.Thread(target=read, args=[timeout]) for timeout in (0, 600_000)]
    for thread in threads:
        thread.start()
    source = backend._source
    assert isinstance(source, ServerSource)
    (device,) = source._opened.values()
    assert isinstance(device, Tapped)
    remote = device._device
    assert isinstance(remote, RemoteDevice)
    wait_until("both wait", lambda: remote._conn.pending == 2)
    backend.close()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(errors) == 4
    assert [text for text in errors if "No such device: " not in text or "released" not in text] == []
    with pytest.raises(usb.core.USBError, match="was closed: get another one"):
        usb.core.find(backend=backend)
    with pytest.raises(usb.core.USBError, match="released"):
        dev.ctrl_transfer(0x80, 0, 0, 0, 2)


def command(number: signal.Signals) -> Callable[[int, Path], None]:
    def run(port: int, capture: Path) -> None:
        line = [sys.executable, "-m", "usbip_capture.cli.main", "serial", f"127.0.0.1:{port}", "--pty"]
        with subprocess.Popen(
            [*line, "--pcap", capture], env=environment(capture.parent), stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            assert "is at" in process.stderr.readline()
            process.send_signal(number)
            assert process.wait(TIMEOUT) in (0, 130)

    return run


SESSIONS: dict[str, Callable[[int, Path], None]] = {
    "serial_for_url": serial_port,
    "SerialClient": serial_client,
    "get_backend": reads_in_flight,
    "SIGTERM": command(signal.SIGTERM),
    "SIGINT": command(signal.SIGINT),
}


@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS.keys())
def test_our_own_end_is_not_the_loss_of_the_device(session: Callable[[int, Path], None], tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.pcapng", tmp_path / "observed.pcapng"
    with observed(theirs) as port:
        session(port, ours)
    seen = endings(ours)
    assert seen
    assert {status for _, status in seen} == {-ECONNRESET}
    assert seen == endings(theirs)
