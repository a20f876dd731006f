"""`--auto`: attached again after each loss, not after it was detached by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Protocol

import pytest

from tests.fakes.simulated_vhci import SimulatedVhci
from tests.waiting import wait_until
from usbip_capture.demo.device import BUSID, INFO, DemoDevice, DemoServer
from usbip_capture.errors import NoVhci, ServerUnreachable, UsbipError
from usbip_capture.servers import mdns
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.servers.mdns import DiscoveredServer
from usbip_capture.vhci import automatic
from usbip_capture.vhci.attaching import Attacher, Attachment
from usbip_capture.vhci.automatic import AutoAttach
from usbip_capture.vhci.records import Records


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOOK_AGAIN", "_FIRST_PAUSE", "_LONGEST_PAUSE"):
        monkeypatch.setattr(automatic, name, 0.02)


@pytest.fixture
def vhci(tmp_path: Path) -> Iterator[SimulatedVhci]:
    with closing(SimulatedVhci(tmp_path / "sys")) as vhci:
        yield vhci


class Attempts(Attacher):
    """Counts them."""

    attempts = 0

    def attach(self, server: ServerAddress, selector: Selector) -> Attachment:
        self.attempts += 1
        return super().attach(server, selector)


@pytest.fixture
def attacher(vhci: SimulatedVhci, tmp_path: Path) -> Attempts:
    return Attempts(vhci, Records(str(tmp_path / "records")))


THE_DEVICE = Selector(busid=BUSID)


class Running:
    """One that runs on a thread. reports: what it has reported; error: what it has ended with."""

    def __init__(self, attacher: Attacher, address: ServerAddress, selector: Selector) -> None:
        self.reports: list[str] = []
        self.error: UsbipError | None = None
        self.auto = AutoAttach(attacher, address, selector, self.reports.append)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.auto.run()
        except UsbipError as error:
            self.error = error

    def await_report(self, text: str, count: int = 1) -> None:
        wait_until(text, lambda: sum(text in report for report in self.reports) >= count)

    def end(self) -> None:
        self.auto.stop()
        self.thread.join()


class Run(Protocol):
    def __call__(self, attacher: Attacher, address: ServerAddress, selector: Selector = ...) -> Running: ...


@pytest.fixture
def run() -> Iterator[Run]:
    running: list[Running] = []

    def start(attacher: Attacher, address: ServerAddress, selector: Selector = THE_DEVICE) -> Running:
        running.append(Running(attacher, address, selector))
        return running[-1]

    yield start
    for one in running:
        one.end()


@pytest.fixture
def serve() -> Iterator[Callable[[int], tuple[DemoServer, ServerAddress]]]:
    servers: list[DemoServer] = []

    def start(port: int = 0) -> tuple[DemoServer, ServerAddress]:
        server = DemoServer()
        servers.append(server)
        return server, ServerAddress("127.0.0.1", server.listen("127.0.0.1", port)[1])

    yield start
    for server in servers:
        server.close()


Serve = Callable[..., tuple[DemoServer, ServerAddress]]


def test_plugged_in_again(run: Run, serve: Serve, attacher: Attacher) -> None:
    server, address = serve()
    running = run(attacher, address)
    for count in (1, 2, 3):
        running.await_report("is attached at port 0, as 3-1", count)
        server.remove(BUSID)
        running.await_report("was lost", count)
        running.await_report("waiting", 2 * count)  # also with why it cannot be attached now
        server.add(INFO, DemoDevice)
    running.await_report("is attached at port 0, as 3-1", 4)
    assert running.reports[0] == f"{BUSID} of {address} is attached at port 0, as 3-1"


def test_a_server_that_is_restarted(run: Run, serve: Serve, attacher: Attacher) -> None:
    server, address = serve()
    running = run(attacher, address)
    running.await_report("is attached")
    server.close()
    running.await_report("nothing listens on")
    serve(address.port)
    running.await_report("is attached", 2)


def test_each_reason_is_reported_once(run: Run, serve: Serve, attacher: Attempts) -> None:
    server, address = serve()
    server.remove(BUSID)
    running = run(attacher, address)
    wait_until("several attempts", lambda: attacher.attempts >= 5)
    assert len(running.reports) == 1
    assert running.reports[0].endswith(": waiting")


def test_detached_by_hand(run: Run, serve: Serve, attacher: Attacher) -> None:
    _, address = serve()
    running = run(attacher, address)
    running.await_report("is attached")
    attacher.detach("all")
    running.thread.join(20)
    assert running.reports[-1] == f"{BUSID} of {address} was detached on this machine: it is not attached again"
    assert attacher.attached() == []


def test_it_stays_attached_when_it_is_stopped(run: Run, serve: Serve, attacher: Attacher) -> None:
    _, address = serve()
    running = run(attacher, address)
    running.await_report("is attached")
    running.end()
    assert running.auto.attachment is not None
    assert [one.where for one in attacher.attached()] == [running.auto.attachment.where]


def test_what_no_waiting_mends(
    run: Run, serve: Serve, attacher: Attacher, vhci: SimulatedVhci, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise NoVhci("run it with sudo")

    monkeypatch.setattr(vhci, "check_rights", refuse)
    running = run(attacher, serve()[1])
    running.thread.join(20)
    assert isinstance(running.error, NoVhci)


def test_woken_it_tries_at_once(run: Run, serve: Serve, attacher: Attacher, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_PAUSE", "_LONGEST_PAUSE"):
        monkeypatch.setattr(automatic, name, 3600.0)
    server, address = serve()
    server.remove(BUSID)
    running = run(attacher, address)
    running.await_report("waiting")
    monkeypatch.setattr(automatic, "_FIRST_PAUSE", 0.0)
    server.add(INFO, DemoDevice)
    running.auto.wake()
    running.await_report("is attached")


@pytest.mark.parametrize(("port", "woken"), [(3240, True), (3241, False)])
def test_an_announcement_wakes_it(port: int, woken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any host: its address may be another name of the one that is meant."""
    found: list[Callable[[DiscoveredServer], None]] = []

    def browsing(on_found: Callable[[DiscoveredServer], None]) -> AbstractContextManager[None]:
        found.append(on_found)
        return nullcontext()

    monkeypatch.setattr(mdns, "browsing", browsing)
    monkeypatch.setenv("USBIP_CAPTURE_DISCOVERY", "on")
    wakes: list[bool] = []
    with automatic.announcements(ServerAddress("pi"), lambda: wakes.append(True)):
        found[0](DiscoveredServer("Pi", "192.0.2.7", port))
    assert wakes == [True] * woken


def test_without_a_network_nothing_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(on_found: object) -> AbstractContextManager[None]:
        raise ServerUnreachable("no server can be looked for")

    monkeypatch.setattr(mdns, "browsing", refuse)
    for discovery in ("on", "off"):
        monkeypatch.setenv("USBIP_CAPTURE_DISCOVERY", discovery)
        with automatic.announcements(ServerAddress("pi"), lambda: None):
            pass
