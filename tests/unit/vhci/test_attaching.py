"""Devices of a real server attached to a simulated kernel: what is imported, recorded, detached and named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.simulated_vhci import SimulatedVhci
from tests.waiting import wait_until
from usbip_capture.demo.device import BUSID, INFO, DemoServer
from usbip_capture.errors import CannotAttach, DeviceNotFound, ImportRefused, LocalProtocolError, ServerUnreachable
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.vhci import attaching
from usbip_capture.vhci.attaching import Attacher
from usbip_capture.vhci.automatic import sentence
from usbip_capture.vhci.records import Origin, Records

DEMO_SERIAL = "DEMO0001"


@pytest.fixture
def server() -> Iterator[DemoServer]:
    with closing(DemoServer()) as server:
        yield server


@pytest.fixture
def address(server: DemoServer) -> ServerAddress:
    return ServerAddress("127.0.0.1", server.listen("127.0.0.1", 0)[1])


@pytest.fixture
def vhci(tmp_path: Path) -> Iterator[SimulatedVhci]:
    with closing(SimulatedVhci(tmp_path / "sys")) as vhci:
        yield vhci


@pytest.fixture
def attacher(vhci: SimulatedVhci, tmp_path: Path) -> Attacher:
    return Attacher(vhci, Records(str(tmp_path / "records")))


def users(server: DemoServer) -> list[str]:
    return [client.busid for client in server.clients if client.busid]


@pytest.mark.parametrize("rule", [BUSID, "1209:0001", f"1209:0001:{DEMO_SERIAL}", f"serial={DEMO_SERIAL}", ""])
def test_attach(
    rule: str, attacher: Attacher, vhci: SimulatedVhci, server: DemoServer, address: ServerAddress, tmp_path: Path
) -> None:
    attachment = attacher.attach(address, Selector.parse(rule))
    assert (attachment.port.number, attachment.port.local_busid) == (0, "3-1")
    assert attachment.recorded
    assert vhci.written[0].split()[2:] == [str(INFO.devid), str(INFO.speed.value)]
    assert vhci.options == [(1, 1, 0)]  # no delay, keepalive, and no time-out of ours that the kernel would inherit
    wait_until("the server has this client", lambda: users(server) == [BUSID])
    assert (tmp_path / "records/port0").read_text() == f"127.0.0.1 {address.port} {BUSID}\n"
    (listed,) = attacher.attached()
    assert listed.origin == Origin("127.0.0.1", str(address.port), BUSID)
    assert listed.where == f"{BUSID} of 127.0.0.1:{address.port}"


@pytest.mark.parametrize("which", ["0", BUSID, "3-1", "all"])
def test_detach(which: str, attacher: Attacher, server: DemoServer, address: ServerAddress, tmp_path: Path) -> None:
    attacher.attach(address, Selector())
    assert [one.where for one in attacher.detach(which)] == [f"{BUSID} of 127.0.0.1:{address.port}"]
    assert attacher.attached() == []
    assert not (tmp_path / "records").exists()
    wait_until("the server has its device again", lambda: not users(server))


def test_what_is_not_attached(attacher: Attacher, address: ServerAddress) -> None:
    assert attacher.detach("all") == []
    with pytest.raises(DeviceNotFound, match=r"nothing is attached$"):
        attacher.detach("1-1")
    attacher.attach(address, Selector())
    for which in ("7", "9-9"):
        with pytest.raises(DeviceNotFound, match=f"called {which}: port 0 has {BUSID} of"):
            attacher.detach(which)


def test_a_name_of_two_devices(attacher: Attacher, vhci: SimulatedVhci, address: ServerAddress) -> None:
    attacher.attach(address, Selector())
    vhci.use(1, local=BUSID)
    with pytest.raises(DeviceNotFound, match=f"several attached devices are called {BUSID}: give a port's number"):
        attacher.detach(BUSID)
    assert [one.port.number for one in attacher.detach("1")] == [1]


def test_an_attachment_that_nobody_has_recorded(attacher: Attacher, vhci: SimulatedVhci) -> None:
    vhci.use(4, devid=0x30007)
    (one,) = attacher.attached()
    assert (one.origin, one.where) == (None, "device 3/7 of a server that is not recorded")


def test_a_device_in_use(attacher: Attacher, server: DemoServer, address: ServerAddress) -> None:
    attacher.attach(address, Selector())
    wait_until("the server has this client", lambda: users(server) == [BUSID])
    with pytest.raises(ImportRefused, match=f"device {BUSID} of .* cannot be imported: .*in use"):
        attacher.attach(address, Selector(busid=BUSID))


def test_nothing_is_imported_when_no_port_is_free(
    attacher: Attacher, vhci: SimulatedVhci, server: DemoServer, address: ServerAddress
) -> None:
    for number in range(16):
        vhci.use(number)
    with pytest.raises(CannotAttach, match="no port of vhci-hcd is free"):
        attacher.attach(address, Selector())
    assert server.clients == []


def test_the_device_is_released_when_the_kernel_refuses(
    attacher: Attacher, vhci: SimulatedVhci, server: DemoServer, address: ServerAddress
) -> None:
    vhci.refusal = 12  # ENOMEM
    with pytest.raises(CannotAttach, match="the kernel refuses"):
        attacher.attach(address, Selector())
    wait_until("the server has its device again", lambda: not server.clients)


def test_a_device_that_is_lost_while_it_is_enumerated(
    attacher: Attacher, vhci: SimulatedVhci, server: DemoServer, address: ServerAddress, tmp_path: Path
) -> None:
    vhci.addresses = vhci.enumerates = False
    vhci.on_attached = lambda: server.remove(BUSID)
    with pytest.raises(CannotAttach, match=r"was lost while the kernel enumerated it: see the kernel's log \(dmesg\)"):
        attacher.attach(address, Selector())
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("addresses", [False, True])
def test_a_device_that_is_not_enumerated_yet(
    addresses: bool, attacher: Attacher, vhci: SimulatedVhci, address: ServerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a busid from its address on, and can be used under it later."""
    monkeypatch.setattr(attaching, "_ENUMERATION", 0.1)
    vhci.addresses, vhci.enumerates = addresses, False
    attachment = attacher.attach(address, Selector())
    assert (attachment.port.number, attachment.port.local_busid) == (0, "")
    assert "is attached at port 0; the kernel has not enumerated it yet" in sentence(attachment)
    assert attacher.is_attached(attachment)


def test_no_server(attacher: Attacher) -> None:
    with pytest.raises(ServerUnreachable, match=r"nothing listens on 127\.0\.0\.1 port 1"):
        attacher.attach(ServerAddress("127.0.0.1", 1), Selector())


def test_the_demo_of_this_process_would_end_with_it(attacher: Attacher) -> None:
    with pytest.raises(LocalProtocolError, match="run usbip-capture demo, and attach from 127"):
        attacher.attach(ServerAddress("demo"), Selector())
