"""vhci-hcd's files: what is written, and each refusal as a sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.builders.vhci_tree import row, vhci_tree, write_status
from tests.fakes.simulated_vhci import SimulatedVhci
from usbip_capture.errors import CannotAttach, NoVhci
from usbip_capture.usb.info import Speed
from usbip_capture.vhci.controller import Vhci


def test_all_controllers_count_through(tmp_path: Path) -> None:
    folder = vhci_tree(tmp_path, controllers=2)
    write_status(folder, 1, {17: row(17, "hs", 6, 2, 5, "5-2")})
    ports = Vhci(str(tmp_path), "linux").ports()
    assert [port.number for port in ports] == list(range(32))
    assert [(port.number, port.local_busid) for port in ports if not port.free] == [(17, "5-2")]


def test_what_is_written(tmp_path: Path) -> None:
    folder = vhci_tree(tmp_path)
    vhci = Vhci(str(tmp_path), "linux")
    assert vhci.attach(7, 0x10002, Speed.HIGH) == 0
    assert (folder / "attach").read_text() == "0 7 65538 3"
    vhci.detach(12)
    assert (folder / "detach").read_text() == "12"


@pytest.mark.parametrize(
    ("speed", "number", "written"),
    [(Speed.LOW, 0, 1), (Speed.HIGH, 0, 3), (Speed.SUPER, 8, 5), (Speed.SUPER_PLUS, 8, 5)],
)
def test_the_port_is_of_the_right_hub(tmp_path: Path, speed: Speed, number: int, written: int) -> None:
    folder = vhci_tree(tmp_path)
    assert Vhci(str(tmp_path), "linux").attach(3, 1, speed) == number
    assert (folder / "attach").read_text() == f"{number} 3 1 {written}"


@pytest.mark.parametrize("error", [errno.EBUSY, errno.EINVAL])
def test_a_port_that_somebody_else_takes_meanwhile(tmp_path: Path, error: int) -> None:
    vhci = SimulatedVhci(tmp_path)
    vhci.busy = {0: error, 1: error}
    with socket_pair() as fileno:
        assert vhci.attach(fileno, 1, Speed.HIGH) == 2
    vhci.close()


def test_no_port_is_free(tmp_path: Path) -> None:
    vhci = SimulatedVhci(tmp_path)
    for number in range(8):
        vhci.use(number)
    with pytest.raises(CannotAttach, match="for high speed is free: detach a device"):
        vhci.attach(3, 1, Speed.FULL)
    assert vhci.written == []


def test_the_kernel_refuses(tmp_path: Path) -> None:
    vhci = SimulatedVhci(tmp_path)
    vhci.refusal = errno.EINVAL
    with pytest.raises(CannotAttach, match=r"the kernel refuses the device: Invalid argument"):
        vhci.attach(3, 1, Speed.UNKNOWN)
    assert len(vhci.written) == 1


def test_nothing_is_attached_at_the_port(tmp_path: Path) -> None:
    with pytest.raises(CannotAttach, match="nothing is attached at port 3"):
        SimulatedVhci(tmp_path).detach(3)


def test_the_module_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(NoVhci, match="run sudo modprobe vhci-hcd"):
        Vhci(str(tmp_path), "linux")


def test_the_folder_of_old_kernels(tmp_path: Path) -> None:
    vhci_tree(tmp_path).rename(tmp_path / "devices/platform/vhci_hcd")
    assert len(Vhci(str(tmp_path), "linux").ports()) == 16


@pytest.mark.parametrize("platform", ["darwin", "win32", "freebsd14"])
def test_another_system(tmp_path: Path, platform: str) -> None:
    with pytest.raises(NoVhci, match="needs Linux's vhci-hcd"):
        Vhci(str(tmp_path), platform)


def test_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vhci_tree(tmp_path)
    vhci = Vhci(str(tmp_path), "linux")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(NoVhci, match="run it with sudo"):
        vhci.check_rights()

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NoVhci, match="run it with sudo"):
        vhci.attach(3, 1, Speed.HIGH)


def socket_pair() -> _Connected:
    return _Connected()


class _Connected:
    """The number of a connected TCP socket, within the block."""

    def __enter__(self) -> int:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._ours = socket.create_connection(listener.getsockname())
            self._theirs, _ = listener.accept()
        return self._ours.fileno()

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._theirs.close()
