"""`SerialPort` when something inside fails: a driver, a thread that cannot be started, Ctrl-C in the midst of close."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.serial_server import SerialServer, serial_server
from tests.oracles.pcapng_reader import read_capture
from tests.waiting import wait_until
from usbip_capture.errors import ServerLost
from usbip_capture.serial_port.port import SerialPort
from usbip_capture.serial_port.url import PortUrl
from usbip_capture.servers.address import Selector, ServerAddress

TIMEOUT = 20.0


@pytest.fixture
def server() -> Iterator[SerialServer]:
    with serial_server() as running:
        yield running


def opened(server: SerialServer, pcap: str = "", reconnect: float = 0.0) -> SerialPort:
    return SerialPort(PortUrl(ServerAddress("127.0.0.1", server.port), Selector("1-1"), pcap=pcap, reconnect=reconnect))


def released(server: SerialServer) -> None:
    wait_until("the device is back", lambda: ServerAddress("127.0.0.1", server.port).devices())


def test_a_driver_that_fails_costs_the_data_and_not_the_port(
    server: SerialServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = opened(server)
    driver = port._driver
    assert driver is not None
    failed = threading.Semaphore(0)

    def fails(data: bytes) -> bytes:
        failed.release()
        raise IndexError("a fault of the driver's")

    for _ in range(12):  # more than there are transfers in flight
        with monkeypatch.context() as patch:
            patch.setattr(driver, "received", fails)
            port.write(b"lost")
            assert failed.acquire(timeout=TIMEOUT)
        port.write(b"read")
        assert port.read(4, TIMEOUT) == b"read"
    assert "what endpoint" in caplog.text
    port.close()


def test_ctrl_c_while_it_closes_leaves_nothing_open(
    server: SerialServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "port.pcapng"
    port = opened(server, str(path))

    def interrupted(timeout: float | None) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(port._outbox, "drain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        port.close()
    released(server)
    ends = [r.usb.status for r in read_capture(path) if r.usb and chr(r.usb.type) == "C"]
    assert ends.count(-104) >= 8
    assert set(ends) <= {0, -104}


def test_closed_by_two_threads_at_once(server: SerialServer, tmp_path: Path) -> None:
    port = opened(server, str(tmp_path / "port.pcapng"))
    begun, goes_on, drained = threading.Event(), threading.Event(), []

    def drain(timeout: float | None) -> bool:
        drained.append(timeout)
        begun.set()
        return goes_on.wait(TIMEOUT)

    port._outbox.drain = drain  # type: ignore[method-assign]
    first = threading.Thread(target=port.close)
    first.start()
    assert begun.wait(TIMEOUT)
    port.close()
    goes_on.set()
    first.join(TIMEOUT)
    assert len(drained) == 1
    released(server)


def test_a_lost_device_that_no_thread_can_wait_for_is_lost(
    server: SerialServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = opened(server, reconnect=TIMEOUT)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "usbip-serial-reconnect":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    server.device.unplug()
    with pytest.raises(ServerLost, match="not waited for: can't start new thread"):
        port.read(1, TIMEOUT)
    monkeypatch.undo()
    port.close()
