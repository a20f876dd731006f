"""Places of labgrid with devices of ours: its real coordinator, exporter and client, on loopback."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import usb.core

from tests.oracles.pcapng_reader import read_capture
from tests.programs.labgrid_site import PATIENCE, Site, is_listening
from tests.programs.simulated_machine import BUSID, PORT
from tests.waiting import wait_until
from usbip_capture.device import Device
from usbip_capture.errors import UsbipError
from usbip_capture.pyusb_backend import get_backend
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.setup import get_descriptor
from usbip_capture.usb.urb import Urb

CONFIGURATION = f"""\
bench:
  UsbipDevice:
    device: {BUSID}
"""
MATCH = "lab/bench/NetworkUsbipDevice"
READ = Urb.control(get_descriptor(1, 0, 0, 18).pack())
#: Of the proof that a place is one person's: 500 and more by `LABGRID_ROUNDS=63`.
PEOPLE, ROUNDS = 8, int(os.environ.get("LABGRID_ROUNDS", "4"))
#: What a person's script does with the place.
SCRIPT = """\
from labgrid import Target
from labgrid.resource.remote import RemotePlace
import usbip_capture.labgrid as ours
target = Target("main")
RemotePlace(target, "bench")
driver = ours.UsbipDriver(target, None)
target.activate(driver)
print(driver.find().product)
target.deactivate(driver)
"""


@pytest.fixture(scope="module", name="lab")
def _lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.close()


@pytest.fixture
def site(lab: Site) -> Iterator[Site]:
    """With neither an exporter nor a place: to start its coordinator and client takes longer than most tests."""
    yield lab
    lab.clear()


@pytest.fixture
def bench(site: Site) -> Site:
    """With an exporter `lab`, and a place `bench`."""
    site.exporter("lab", CONFIGURATION)
    site.place("bench", MATCH)
    return site


def server_at(port: int) -> ServerAddress:
    return ServerAddress("127.0.0.1", port, 20.0)


def imported(port: int) -> Device:
    device = server_at(port).import_device(Selector(BUSID))
    assert device.run(READ, 20).status == 0
    return device


def test_a_server_runs_while_the_place_is_acquired(bench: Site) -> None:
    assert bench.port("lab") == 0
    bench.client("-p", "bench", "acquire")
    port = bench.port("lab")
    assert [str(info) for info in server_at(port).devices()] == [f"{BUSID} (1209:0001)"]
    assert "already acquired" in bench.client("-p", "bench", "acquire", user="bob", fails=True)
    device = imported(port)
    lost = threading.Event()
    device.watch(lambda reason: lost.set())
    bench.client("-p", "bench", "release")
    assert lost.wait(PATIENCE)
    device.close()
    assert not is_listening(port)
    assert bench.port("lab") == 0


def test_a_script_uses_the_device_of_its_place(bench: Site) -> None:
    refused = bench.run("-c", SCRIPT)
    assert refused.returncode == 1
    bench.client("-p", "bench", "acquire")
    done = bench.run("-c", SCRIPT)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Demo device"), done.stdout


def test_a_reservation_waits_for_the_place(bench: Site) -> None:
    bench.client("-p", "bench", "set-tags", "board=demo")
    bench.client("-p", "bench", "acquire")
    shown = bench.client("reserve", "--shell", "board=demo", user="bob")
    token = shown.strip().partition("LG_TOKEN=")[2]
    bench.client("-p", "bench", "release")
    bench.client("wait", token, user="bob")
    assert "reserved" in bench.client("-p", "bench", "acquire", fails=True)
    bench.client("-p", "bench", "acquire", user="bob")
    imported(bench.port("lab")).close()


def test_of_several_exporters_each_lends_its_own(site: Site) -> None:
    for name in ("one", "two"):
        site.exporter(name, CONFIGURATION)
        site.place(name, f"{name}/bench/NetworkUsbipDevice")
        site.client("-p", name, "acquire")
    ports = [site.port(name) for name in ("one", "two")]
    assert len(set(ports)) == 2
    devices = [imported(port) for port in ports]
    site.exporters[0].program.end(signal.SIGKILL)
    assert devices[1].run(READ, 20).status == 0
    for device in devices:
        device.close()


def test_an_exporter_that_is_killed_lends_again_when_it_is_back(bench: Site) -> None:
    """The place is still acquired: labgrid acquires its resources again."""
    bench.client("-p", "bench", "acquire")
    port = bench.port("lab")
    device = imported(port)
    (exporter,) = bench.exporters
    exporter.program.end(signal.SIGKILL)
    wait_until("the server ends with its exporter", lambda: not is_listening(port), PATIENCE)
    device.close()
    exporter.start_again()
    exporter.wait_until_ready()
    wait_until("the device is lent again", lambda: bench.port("lab"), PATIENCE)
    imported(bench.port("lab")).close()
    bench.client("-p", "bench", "release")


def test_a_coordinator_that_is_killed_ends_the_session(bench: Site) -> None:
    """Nobody could release it any more; once all is back, the place can be acquired anew."""
    bench.client("-p", "bench", "acquire")
    port = bench.port("lab")
    (exporter,) = bench.exporters
    bench.end_coordinator()
    assert exporter.program.process.wait(PATIENCE) == 100
    assert not is_listening(port)
    assert exporter.program.printed.count("cannot be reached: start it") == 1
    bench.start_coordinator()
    exporter.start_again()
    exporter.wait_until_ready()
    if "bench" not in bench.client("places"):  # it saves them from time to time only
        bench.place("bench", MATCH)
    bench.client("-p", "bench", "acquire")
    imported(bench.port("lab")).close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_exporter_ends_in_order(number: signal.Signals, bench: Site) -> None:
    bench.client("-p", "bench", "acquire")
    device = imported(bench.port("lab"))
    (exporter,) = bench.exporters
    assert exporter.program.end(number) == 0
    device.close()
    calls = [call.split("'")[1] for call in exporter.machine.calls]
    assert calls.count("attach") == calls.count("detach") >= 2
    assert "Traceback" not in exporter.program.printed


def test_a_device_that_is_unplugged_and_flashed(bench: Site) -> None:
    """At the same port it is the same device to whoever has the place, whatever it calls itself now."""
    bench.client("-p", "bench", "acquire")
    port = bench.port("lab")
    machine = bench.exporters[0].machine
    machine.unplug(PORT)
    wait_until("it is not listed", lambda: not server_at(port).devices(), PATIENCE)
    machine.plug(PORT, "1209:dfdf")
    wait_until("it is another one", lambda: server_at(port).devices(), PATIENCE)
    assert [str(info) for info in server_at(port).devices()] == [f"{BUSID} (1209:dfdf)"]
    assert bench.port("lab") == port


def test_a_place_whose_device_is_plugged_in_later(site: Site) -> None:
    exporter = site.exporter("lab", CONFIGURATION.replace(BUSID, "1209:0002"))
    site.place("bench", MATCH)
    site.client("-p", "bench", "acquire")
    assert site.port("lab") == 0
    exporter.machine.plug("9.8", "1209:0002")
    wait_until("it is lent", lambda: site.port("lab"), PATIENCE)
    assert [str(info) for info in server_at(site.port("lab")).devices()] == ["1-9.8 (1209:0002)"]


def test_others_are_allowed_by_address(site: Site) -> None:
    """The rules stay at the exporter: nothing of them is in the resource."""
    site.exporter("lab", CONFIGURATION + "    rules: ['allow 192.0.2.7', 'deny local']\n")
    site.place("bench", MATCH)
    site.client("-p", "bench", "acquire")
    with pytest.raises(UsbipError, match=r"broke off|closed|refus"):
        server_at(site.port("lab")).devices()
    shown = site.client("-v", "resources")
    assert "192.0.2.7" not in shown
    assert "deny" not in shown


@pytest.mark.long
def test_eight_people_want_one_place(bench: Site) -> None:
    """It is never two people's, none of them loses it, and each time the device is there, and captured."""
    having = threading.Lock()
    failed = threading.Event()
    results: list[str] = []

    def use(user: str) -> str:
        clients = bench.clients()
        try:
            for number in range(ROUNDS):
                while clients.run(user, "-p", "bench", "acquire")[0]:  # somebody else has it
                    if failed.is_set():
                        return "another one has failed"
                assert having.acquire(blocking=False), "two people have it"
                code, shown = clients.run(user, "-v", "resources", MATCH)
                assert code == 0, shown
                use_and_capture(int(re.findall(r"'port': (\d+)", shown)[0]), bench.folder / f"{user}-{number}.pcapng")
                having.release()
                code, printed = clients.run(user, "-p", "bench", "release")
                assert code == 0, printed
        except BaseException as error:  # noqa: BLE001  the test fails with it
            failed.set()
            return repr(error)
        finally:
            clients.close()
        return "done"

    people = [threading.Thread(target=lambda user=f"user{n}": results.append(use(user))) for n in range(PEOPLE)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert results == ["done"] * PEOPLE
    assert bench.exporters[0].program.printed.count("is lent to place bench") == ROUNDS * PEOPLE
    assert bench.port("lab") == 0


def use_and_capture(port: int, path: Path) -> None:
    """By PyUSB; what was written is in the capture."""
    with get_backend("127.0.0.1", port, pcap=path) as backend:
        found = usb.core.find(backend=backend)
        assert found is not None
        assert found.write(0x04, path.name.encode()) == len(path.name)
        assert bytes(found.read(0x84, 64)) == path.name.encode()
    assert path.name.encode() in [record.usb.data for record in read_capture(path) if record.usb is not None]
