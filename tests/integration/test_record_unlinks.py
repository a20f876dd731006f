"""URBs that a client of ours unlinks: the comment on their completion, and `--record-unlinks`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders.usbip_sessions import BULK_IN, unlink, unlink_reply
from tests.oracles.pcapng_reader import CapturedInterface, CapturedRecord, read_items
from usbip_capture import PcapWriter
from usbip_capture.demo.device import CDC_NOTIFY, DemoServer
from usbip_capture.records.usbmon import COMPLETE
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.tap import Tapped
from usbip_capture.usb.info import DeviceInfo, Speed
from usbip_capture.usb.setup import set_configuration
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import Completion, TransferType, Urb

TIMEOUT = 30.0
INFO = DeviceInfo("1-1", 3, 4, Speed.HIGH, 0x1209, 0x0001)
READ = Urb(TransferType.BULK, BULK_IN, 64)
NOTIFY = Urb(TransferType.INTERRUPT, CDC_NOTIFY, 16, interval=16)
CMD_UNLINK, RET_UNLINK = 2, 4
_, CMD = unlink(2, 1)
_, RET = unlink_reply(2, -ECONNRESET)


def unlinked_reads(path: Path, *, capture_filter: str = "", record_unlinks: bool = True) -> list[CapturedRecord]:
    """The packets of a capture in which one URB of the demo device runs, and two are unlinked."""
    server = DemoServer()
    where = server.listen("127.0.0.1", 0)
    writer = PcapWriter(path, capture_filter=capture_filter, record_unlinks=record_unlinks)
    try:
        with writer:
            remote = ServerAddress(*where, TIMEOUT).import_device(Selector("1-1"))
            device = Tapped(remote, writer.add_usb_interface(remote.info, server="demo"))
            device.run(Urb.control(set_configuration(1).pack()), TIMEOUT)
            for _ in range(2):
                assert device.run(NOTIFY, timeout=0.01, grace=TIMEOUT).status == -ECONNRESET
            device.close()
    finally:
        server.close()
    return [item for item in read_items(path) if isinstance(item, CapturedRecord)]


def messages(records: list[CapturedRecord]) -> list[tuple[int, int]]:
    """Command and seqnum of each PDU on the second interface."""
    return [
        (int.from_bytes(r.data[40:44], "big"), int.from_bytes(r.data[44:48], "big"))
        for r in records
        if r.interface.name == "unlink0"
    ]


def test_unlinks_of_a_live_capture(tmp_path: Path) -> None:
    path = tmp_path / "live.pcapng"
    records = unlinked_reads(path)
    sent = messages(records)
    assert [command for command, _ in sent] == [CMD_UNLINK, RET_UNLINK] * 2
    assert sent[0][1] == sent[1][1] != sent[2][1] == sent[3][1]
    done = [r for r in records if r.usb and r.usb.type == COMPLETE]
    assert [r.comments for r in done] == [[], *([f"usbip-capture: unlinked by CMD_UNLINK {n}"] for _, n in sent[::2])]
    usb, unlinks = (item for item in read_items(path) if isinstance(item, CapturedInterface))
    assert (usb.name, usb.received, unlinks.name, unlinks.received, unlinks.dropped) == ("usbip0", 6, "unlink0", 4, 0)


def test_without_the_option_there_is_the_comment_only(tmp_path: Path) -> None:
    records = unlinked_reads(tmp_path / "live.pcapng", record_unlinks=False)
    assert {r.interface.name for r in records} == {"usbip0"}
    assert [len(r.comments) for r in records] == [0, 0, 0, 1, 0, 1]


def test_unlinks_of_urbs_that_the_filter_leaves_out_are_left_out(tmp_path: Path) -> None:
    assert messages(unlinked_reads(tmp_path / "control.pcapng", capture_filter="control")) == []
    assert len(messages(unlinked_reads(tmp_path / "interrupt.pcapng", capture_filter="interrupt"))) == 4


@pytest.mark.wireshark
def test_wireshark_shows_them(tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    path = tmp_path / "live.pcapng"
    unlinked_reads(path)
    command = ["tshark", "-2", "-r", str(path), "-d", "tcp.port==3240,usbip", "-Y", "usbip.urb || _ws.malformed"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split("USBIP")[0] != line for line in done.stdout.splitlines()] == [True] * 4


def test_as_an_option_of_the_command(tmp_path: Path) -> None:
    path = tmp_path / "live.pcapng"
    program = "import sys; from usbip_capture.extcap.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program,
               "--capture", "--extcap-interface", "usbip-remote", "--host", "demo", "--record-unlinks", "on",
               "--count", "60", "--fifo", str(path)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    interfaces = [item for item in read_items(path) if isinstance(item, CapturedInterface)]
    assert {interface.name: interface.link_type for interface in interfaces} == {"usbip0": 220, "unlink0": 101}


def test_what_finds_no_room_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "small.pcapng"
    with PcapWriter(path, queue_bytes=4096, record_unlinks=True) as writer:
        channel = writer.add_usb_interface(INFO, server="pi")
        with channel._queue.lock:
            channel._queue.used += 4096  # as if the reader had stopped
        channel.unlink(0, CMD)
        with channel._queue.lock:
            channel._queue.used -= 4096
        channel.unlink(0, RET)
        urb_id = channel.submitted(READ)
        channel.completed(urb_id, READ, Completion(0))
    _, unlinks = (item for item in read_items(path) if isinstance(item, CapturedInterface))
    assert (unlinks.received, unlinks.dropped) == (2, 1)
