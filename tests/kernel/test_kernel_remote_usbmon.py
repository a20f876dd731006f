"""Mode `usbmon` with sshd inside a guest: real usbmon, shell and tcpdump. What is recorded there meanwhile is equal."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.rig import Guest
from tests.kernel.rig.usbmon import recorded
from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from tests.programs.sshd import Sshd, running_sshd
from tests.waiting import wait_until
from usbip_capture.capture.channel import IN_FLIGHT
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import UsbipError
from usbip_capture.net import ssh
from usbip_capture.recordings.reading import open_capture
from usbip_capture.records.usbmon import UsbmonRecord
from usbip_capture.remote_usbmon.group import WatchedGroup
from usbip_capture.remote_usbmon.settings import UsbmonSettings
from usbip_capture.remote_usbmon.urbs import DESCRIPTORS
from usbip_capture.servers.address import ServerAddress

pytestmark = pytest.mark.kernel

_SSHD = "/usr/sbin/sshd"
_CONFIG = """\
HostKey /etc/ssh/host
AuthorizedKeysFile /etc/ssh/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
"""


@pytest.fixture
def address(guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """As ssh:// names the guest, where this machine's sshd runs now, with the keys of one of ours."""
    with running_sshd(tmp_path) as sshd:
        monkeypatch.setenv("PATH", sshd.path)
        monkeypatch.setattr(ssh, "_has_terminal", lambda: False)
        guest.run("tar -x -C /", packed_sshd(sshd, tmp_path))
        guest.run(
            "mkdir -p /run/sshd /root; chmod 600 /etc/ssh/host; chmod 755 /run/sshd;"
            " grep -q ^root: /etc/passwd || echo root:x:0:0::/root:/bin/sh >>/etc/passwd;"
            " grep -q ^sshd: /etc/passwd || echo sshd:x:105:65534::/run/sshd:/bin/false >>/etc/passwd;"
            # tcpdump becomes this user once it has opened usbmon.
            " grep -q ^tcpdump: /etc/passwd || echo tcpdump:x:106:106::/:/bin/false >>/etc/passwd;"
            f" {_SSHD} -f /etc/ssh/usbmon_config -E /tmp/sshd.log"
        )
        port = guest.forward(22)
        sshd.know(f"[127.0.0.1]:{port} {(tmp_path / 'host.pub').read_text()}")
        yield f"ssh://root@127.0.0.1:{port}"
        guest.run("kill $(pidof sshd)", check=False)


def packed_sshd(sshd: Sshd, folder: Path) -> bytes:
    """A tar of this machine's sshd, of its libraries, and of what it is set up with."""
    linked = subprocess.run(["ldd", _SSHD], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", linked)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
        for file in (_SSHD, *libraries):
            tar.add(file)
        tar.add(folder / "host", "etc/ssh/host")
        for name, text in (("usbmon_config", _CONFIG), ("authorized_keys", sshd.key)):
            info = tarfile.TarInfo(f"etc/ssh/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return archive.getvalue()


def test_it_equals_what_is_recorded_there(guest: Guest, address: str, tmp_path: Path) -> None:
    """A disk that the guest reads: each record of ours is one of its usbmon, and none is missing from the first on."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(range(256)) * 4096)
    guest.run("modprobe -a usbmon usb-storage sd_mod")
    busid = guest.plug("storage", "ehci", file=disk)
    path, reference = tmp_path / "ours.pcapng", tmp_path / "reference.pcap"
    try:
        guest.wait_until(lambda: guest.run("ls /sys/block").text.count("sd"), 30)
        devnum = int(guest.run(f"cat /sys/bus/usb/devices/{busid}/devnum").text)
        watched = WatchedGroup(ServerAddress.parse(address), busid, UsbmonSettings(262144))
        errors: list[UsbipError] = []

        def run(writer: PcapWriter) -> None:
            try:
                watched.run(writer)
            except UsbipError as error:
                errors.append(error)

        with recorded(guest, int(busid.partition("-")[0]), reference):
            watched.connect()
            with PcapWriter(path) as writer:
                thread = threading.Thread(target=run, args=(writer,), daemon=True)  # also where the test fails
                thread.start()
                wait_until("it captures", lambda: errors or writer.received, 120)
                guest.run("echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/sda of=/dev/null bs=64k 2>/dev/null")
                wait_until("the data has come", lambda: errors or writer.bytes > 1 << 19, 120)
                watched.stop()
                thread.join(20)
    finally:
        guest.unplug(busid)
    assert not errors
    found = [record_key(record.usb) for record in read_capture(path) if is_of_usbmon(record)]
    with open_capture(reference) as capture:
        of_device = [p[start:end] for _, _, p, start, end, _, _ in capture.packets if p[start + 11] == devnum]
    every = [record_key(UsbmonRecord.parse(raw)) for raw in of_device]
    assert len(found) > 16
    assert any(every[first : first + len(found)] == found for first in range(len(every)))


def is_of_usbmon(record: CapturedRecord) -> bool:
    return record.usb is not None and not {DESCRIPTORS, IN_FLIGHT} & set(record.comments)


def record_key(record: UsbmonRecord | None) -> tuple[object, ...]:
    """What is equal in both: all but the id, and the time: each reader of usbmon has a clock of its own."""
    assert record is not None
    return (
        record.type, record.xfer_type, record.epnum, record.devnum, record.busnum,
        record.status, record.length, record.setup, record.xfer_flags, record.data,
    )  # fmt: skip
