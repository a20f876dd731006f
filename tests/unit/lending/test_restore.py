"""Drivers that a killed server has left unbound: bound again once, and only if it is still the same device."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from tests.builders.sysfs_tree import Machine
from usbip_capture.cli.main import main
from usbip_capture.lending import restore as module
from usbip_capture.lending.restore import UnboundDrivers, folder, restore


class Kernel:
    """A machine whose process is alive or not, and whose drivers the test unbinds."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.bound: list[tuple[str, int]] = []
        self.sysfs = machine.device("1-1.4", idVendor="303a", idProduct="4001", serial="A")
        self.interfaces = [machine.interface(self.sysfs, 0, "cdc_acm"), machine.interface(self.sysfs, 1, "usbfs")]
        self.interfaces.append(machine.interface(self.sysfs, 2))
        self.alive("17")

    def alive(self, started: str) -> None:
        fields = " ".join(["S", *["0"] * 18, started, "0"])
        self.machine.proc(f"{os.getpid()}/stat", f"{os.getpid()} (a) b) {fields}")

    def unbind(self) -> None:
        (self.interfaces[0] / "driver").unlink()

    def restore(self) -> list[str]:
        """What is bound; nothing may be left."""
        restored = restore(self.machine.roots, lambda node, number: self.bound.append((node, number)))
        assert (restored.left, restored.complaint) == ([], "")
        return restored.bound


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Kernel(Machine(tmp_path))


def killed(kernel: Kernel) -> None:
    """A server unbinds the driver, and is killed."""
    UnboundDrivers(kernel.machine.roots).unbinding(kernel.sysfs)
    kernel.unbind()
    kernel.alive("18")


def test_what_a_killed_server_left_is_bound_again(kernel: Kernel) -> None:
    killed(kernel)
    assert kernel.restore() == ["1-1.4:1.0 has its driver cdc_acm again"]
    assert kernel.bound == [(str(kernel.machine.node()), 0)]
    assert kernel.restore() == []
    assert list(folder().iterdir()) == []


def test_the_file_is_for_its_owner_and_whole(kernel: Kernel) -> None:
    drivers = UnboundDrivers(kernel.machine.roots)
    drivers.unbinding(kernel.sysfs)
    (path,) = folder().iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(json.loads(path.read_text())["devices"][kernel.sysfs]["drivers"].values()) == ["cdc_acm"]
    drivers.bound(kernel.sysfs, 7)
    assert not path.exists()
    drivers.bound(kernel.sysfs, 7)


def test_a_device_that_is_gone_does_not_make_its_successor_forgotten(kernel: Kernel) -> None:
    """It came back as another address while the session with the first one still ends."""
    drivers = UnboundDrivers(kernel.machine.roots)
    drivers.unbinding(kernel.sysfs)
    Path(kernel.sysfs, "devnum").write_text("8\n")
    drivers.unbinding(kernel.sysfs)
    kernel.unbind()
    drivers.bound(kernel.sysfs, 7)
    kernel.alive("18")
    assert kernel.restore() == ["1-1.4:1.0 has its driver cdc_acm again"]


def test_a_device_that_is_just_reset_is_the_same(kernel: Kernel) -> None:
    """Linux shows the address 0 then."""
    Path(kernel.sysfs, "dev").write_text("189:6\n")
    Path(kernel.sysfs, "devnum").write_text("0\n")
    UnboundDrivers(kernel.machine.roots).unbinding(kernel.sysfs)
    Path(kernel.sysfs, "devnum").write_text("7\n")
    kernel.unbind()
    kernel.alive("18")
    assert kernel.restore() == ["1-1.4:1.0 has its driver cdc_acm again"]
    assert kernel.bound == [(str(kernel.machine.node()), 0)]


def test_nothing_is_done_while_the_server_lives(kernel: Kernel) -> None:
    drivers = UnboundDrivers(kernel.machine.roots)
    drivers.unbinding(kernel.sysfs)
    kernel.unbind()
    assert kernel.restore() == []
    assert not kernel.bound


def changed_address(kernel: Kernel) -> None:
    Path(kernel.sysfs, "devnum").write_text("8\n")


def another_device(kernel: Kernel) -> None:
    Path(kernel.sysfs, "serial").write_text("B\n")


def gone(kernel: Kernel) -> None:
    Path(kernel.sysfs).unlink()


def bound_meanwhile(kernel: Kernel) -> None:
    (kernel.interfaces[0] / "driver").symlink_to(kernel.machine.folder)


@pytest.mark.parametrize("meanwhile", [changed_address, another_device, gone, bound_meanwhile])
def test_another_or_no_device_is_left_alone(kernel: Kernel, meanwhile: Callable[[Kernel], None]) -> None:
    killed(kernel)
    meanwhile(kernel)
    assert kernel.restore() == []
    assert not kernel.bound
    assert list(folder().iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"started": "1"}', '{"started": "1", "devices": 3}', '{"started": "1", "devices": {"x": 3}}'],
)
def test_what_is_not_one_of_our_files_is_removed(kernel: Kernel, text: str) -> None:
    folder().mkdir(parents=True)
    path = folder() / f"{os.getpid()}-0.json"
    path.write_text(text)
    assert kernel.restore() == []
    assert not path.exists()


class Refusing:
    """Binds no driver of the interfaces that have an error here."""

    def __init__(self, **errors: int) -> None:
        self.errors = {int(name[1:]): number for name, number in errors.items()}
        self.asked: list[int] = []

    def __call__(self, node: str, number: int) -> None:
        self.asked.append(number)
        if number in self.errors:
            raise OSError(self.errors[number], os.strerror(self.errors[number]))


def test_what_may_not_be_bound_is_kept_for_who_may(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only that: started again as root, the server binds it."""
    (kernel.interfaces[2] / "driver").symlink_to(kernel.machine.folder)
    killed(kernel)
    (kernel.interfaces[2] / "driver").unlink()
    refusing = Refusing(_0=errno.EACCES)
    monkeypatch.setattr(module, "_bind", refusing)
    for asked in ([0, 2], [0]):
        restored = restore(kernel.machine.roots)
        assert refusing.asked == asked
        assert restored.left == ["1-1.4:1.0 (cdc_acm): Permission denied"]
        assert restored.complaint == (
            "still without a driver: 1-1.4:1.0 (cdc_acm): Permission denied: "
            "let who may bind it run `serve --restore`, or plug it in again"
        )
        refusing.asked.clear()
        (kernel.interfaces[2] / "driver").unlink(missing_ok=True)
    assert kernel.restore() == ["1-1.4:1.0 has its driver cdc_acm again"]
    assert list(folder().iterdir()) == []


def test_the_command_prints_both(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    done = module.Restored(["1-1.4:1.2 has its driver cdc_acm again"], ["1-1.4:1.0 (cdc_acm): Permission denied"])
    monkeypatch.setattr(module, "restore", lambda: done)
    assert main(["serve", "--restore"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "1-1.4:1.2 has its driver cdc_acm again\n"
    assert "still without a driver: 1-1.4:1.0 (cdc_acm): Permission denied: let who" in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENOENT, errno.EBUSY])
def test_what_never_can_be_bound_is_reported_once(kernel: Kernel, number: int) -> None:
    killed(kernel)
    restored = restore(kernel.machine.roots, Refusing(_0=number))
    assert restored.left == [f"1-1.4:1.0 (cdc_acm): {os.strerror(number)}"]
    assert kernel.restore() == []
    assert list(folder().iterdir()) == []


def test_a_file_that_may_not_be_read_stays(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is root's, in the folder of somebody who has run a server by sudo."""
    killed(kernel)
    (path,) = folder().iterdir()

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(module, "open", refused, raising=False)
        assert restore(kernel.machine.roots).left == [f"what {path} has: Permission denied"]
    assert kernel.restore() == ["1-1.4:1.0 has its driver cdc_acm again"]


def test_a_file_that_cannot_be_replaced_stays(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(kernel)
    (path,) = folder().iterdir()

    def full(path: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "Replacement", full)
        restored = restore(kernel.machine.roots, Refusing(_0=errno.EPERM))
    assert restored.left[1:] == [f"what {path} has: No space left on device"]
    assert kernel.restore() == ["1-1.4:1.0 has its driver cdc_acm again"]


def test_a_later_process_of_the_same_number_has_another_file(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, where it is often the same one."""
    monkeypatch.setattr(module, "_numbers", count())
    killed(kernel)
    assert restore(kernel.machine.roots, Refusing(_0=errno.EPERM)).left
    monkeypatch.setattr(module, "_numbers", count())
    drivers = UnboundDrivers(kernel.machine.roots)
    (kernel.interfaces[0] / "driver").symlink_to(kernel.machine.folder)
    drivers.unbinding(kernel.sysfs)
    assert len(list(folder().iterdir())) == 2
    drivers.bound(kernel.sysfs, 7)
    kernel.unbind()
    assert kernel.restore() == ["1-1.4:1.0 has its driver cdc_acm again"]


def test_a_state_folder_that_cannot_be_written_is_reported(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    folder().parent.mkdir(parents=True)
    folder().write_text("")
    UnboundDrivers(kernel.machine.roots).unbinding(kernel.sysfs)
    assert "which drivers are unbound cannot be remembered" in caplog.text
    assert kernel.restore() == []


@pytest.mark.skipif(sys.platform != "linux", reason="usbfs is Linux's")
def test_the_numbers_of_the_request_are_the_kernel_s() -> None:
    code = (
        "import ctypes, struct\n"
        "class R(ctypes.Structure): _fields_=[('i',ctypes.c_int),('c',ctypes.c_int),('d',ctypes.c_void_p)]\n"
        "print((3 << 30) | (ctypes.sizeof(R) << 16) | (ord('U') << 8) | 18, (ord('U') << 8) | 23)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(module._USBDEVFS_IOCTL), str(module._USBDEVFS_CONNECT)]
