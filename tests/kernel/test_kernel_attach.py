"""`usbip-capture attach` in a guest: its kernel enumerates the device of a server on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.kernel.lending import Lending
from tests.kernel.rig import PythonGuest
from tests.kernel.rig.machine import HOST_ADDRESS
from tests.kernel.rig.python_guest import Program
from tests.waiting import wait_until
from usbip_capture.demo.device import BUSID, INFO, DemoDevice, DemoServer

pytestmark = pytest.mark.kernel

#: Starts like the command; nobody announces anything there, and a busy machine is not a server that does not answer.
_ENVIRONMENT = {"USBIP_CAPTURE_DISCOVERY": "off", "USBIP_CAPTURE_CONNECT_TIMEOUT": "20"}
_MAIN = f"import os, sys; from usbip_capture.cli.main import main; os.environ.update({_ENVIRONMENT}); "
_RUN = f"{_MAIN}sys.exit(main(sys.argv[1:]))"
_AS_A_USER = f"{_MAIN}os.setuid(1000); sys.exit(main(sys.argv[1:]))"
_TIMEOUT = 60.0


class Commands:
    """`usbip-capture` in the guest."""

    def __init__(self, guest: PythonGuest) -> None:
        self.guest = guest

    def __call__(self, *arguments: str) -> str:
        """What it prints; it must end well."""
        return self.guest.python(_RUN, *arguments, timeout=_TIMEOUT).text

    def failure(self, *arguments: str, code: str = _RUN) -> str:
        """What it prints, standard error too; it must fail."""
        done = self.guest.python(code, *arguments, timeout=_TIMEOUT, check=False)
        assert done.returncode
        return done.text

    def start(self, *arguments: str) -> Program:
        return self.guest.start("-c", _RUN, *arguments)


@pytest.fixture
def command(borrower: PythonGuest) -> Iterator[Commands]:
    command = Commands(borrower)
    yield command
    borrower.run("modprobe vhci-hcd")
    command("detach", "all")


@contextmanager
def serving(port: int = 0) -> Iterator[tuple[DemoServer, str]]:
    """A server of this machine, and its address as the guest knows it."""
    with closing(DemoServer()) as server:
        yield server, f"{HOST_ADDRESS}:{server.listen('127.0.0.1', port)[1]}"


def attach(command: Commands, *arguments: str) -> str:
    """The busid in the guest; on a machine that is busy its kernel may need longer than the command waits."""
    printed = command("attach", *arguments)
    (number,) = re.findall(r" is attached at port (\d+)[,;]", printed)

    def local() -> str:
        (found,) = [one for one in json.loads(command("attached", "--json")) if one["port"] == int(number)]
        return found["idVendor"] and found["local_busid"]  # type: ignore[no-any-return]

    busid = wait_until("the kernel enumerates it", local, _TIMEOUT)
    assert f", as {busid}\n" in printed or "not enumerated it yet" in printed
    return busid


def users(server: DemoServer) -> list[str]:
    return [client.busid for client in server.clients if client.busid]


def test_attach_attached_detach(command: Commands) -> None:
    with serving() as (server, where):
        local = attach(command, where, "1209:0001")
        assert users(server) == [BUSID]
        device = f"/sys/bus/usb/devices/{local}"
        assert command.guest.run(f"cat {device}/product {device}/speed").text == "Demo device\n480\n"
        command.guest.run(f"until [ -e {device}/{local}:1.0 ]; do usleep 20000; done")
        assert command("attached") == (
            f"port 0: {local}  1209:0001  usbip_capture Demo device, DEMO0001  from {BUSID} of {where}\n"
        )
        (listed,) = json.loads(command("attached", "--json"))
        assert (listed["port"], listed["local_busid"], listed["devid"]) == (0, local, INFO.devid)
        assert "in use" in command.failure("attach", where, BUSID)
        assert command("detach", BUSID) == f"{BUSID} of {where} is detached from port 0\n"
        command.guest.run(f"until [ ! -e {device} ]; do usleep 20000; done")
        wait_until("the server has its device again", lambda: not users(server))
        assert "nothing is attached" in command.failure("detach", "0")


def test_what_usbip_attached_and_what_we_did(command: Commands) -> None:
    """Each lists and detaches what the other has attached."""
    with serving() as (server, where):
        host, port = where.split(":")
        local = attach(command, where, BUSID)
        ports = command.guest.run("usbip port").text
        assert f"{local} -> usbip://{where}/{BUSID}" in ports
        command.guest.run(f"usbip detach -p 0; until [ ! -e /sys/bus/usb/devices/{local} ]; do usleep 20000; done")
        wait_until("the server has its device again", lambda: not users(server))

        local = command.guest.attach(int(port), BUSID, host)
        assert command("attached").startswith(f"port 0: {local}  1209:0001")
        assert f"from {BUSID} of {where}\n" in command("attached")
        assert command("detach", local) == f"{BUSID} of {where} is detached from port 0\n"


def test_auto(command: Commands) -> None:
    with serving() as (server, where):
        program = command.start("attach", where, BUSID, "--auto")
        program.wait_printed("is attached", _TIMEOUT)
        server.remove(BUSID)
        program.wait_printed("was lost", _TIMEOUT)
        server.add(INFO, DemoDevice)
        wait_printed(program, "is attached", 2)
    wait_printed(program, "was lost", 2)
    with serving(int(where.partition(":")[2])) as (server, _):
        wait_printed(program, "is attached", 3)
        program.signal("INT")
        program.wait_ended()
        assert "stays attached" in program.printed()
        assert users(server) == [BUSID]
        assert f"from {BUSID} of {where}" in command("attached")


def test_auto_ends_when_it_is_detached_by_hand(command: Commands) -> None:
    with serving() as (_, where):
        program = command.start("attach", where, BUSID, "--auto")
        program.wait_printed("is attached", _TIMEOUT)
        command("detach", "all")
        program.wait_ended()
        assert program.printed().endswith("was detached on this machine: it is not attached again\n")


def test_a_superspeed_disk(command: Commands, lending: Lending, disk: Path) -> None:
    """Of our own server in another guest: on the hub for SuperSpeed."""
    busid = lending.lend("storage", "xhci-ss", file=disk, driver="usb-storage")
    local = attach(command, f"{HOST_ADDRESS}:{lending.port}", busid)
    assert command.guest.run(f"cat /sys/bus/usb/devices/{local}/speed").text == "5000\n"
    (listed,) = json.loads(command("attached", "--json"))
    assert (listed["hub"], listed["local_busid"]) == ("ss", local)
    command("detach", str(listed["port"]))


def test_sentences(command: Commands) -> None:
    with serving() as (server, where):
        assert "need root's rights: run it with sudo" in command.failure("attach", where, code=_AS_A_USER)
        assert users(server) == []
        assert "nothing listens on" in command.failure("attach", f"{HOST_ADDRESS}:1", BUSID)
        command.guest.run("rmmod vhci-hcd")
        for arguments in (("attach", where), ("detach", "0"), ("attached",)):
            assert "is not loaded: run sudo modprobe vhci-hcd" in command.failure(*arguments)


def wait_printed(program: Program, text: str, count: int) -> None:
    program.guest.wait_until(lambda: program.printed().count(text) >= count, _TIMEOUT)
