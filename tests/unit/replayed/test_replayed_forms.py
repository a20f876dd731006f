"""Recordings in all forms, cut, filtered, with drops, begun in mid-session, of two devices: what they still replay."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders.asked_again import asked_again
from tests.builders.capture_files import FORMS, Shown, classic, option, packets_of, pcapng, snapped
from usbip_capture.device import Transfer
from usbip_capture.errors import CaptureError
from usbip_capture.recordings.link_types import USB_LINUX_MMAPPED
from usbip_capture.replayed.device import ReplayedDevice
from usbip_capture.replayed.recording import Recording, chosen, read_recordings
from usbip_capture.usb.urb import TransferType, Urb

_ROOT_HUB = 1  # its device number
_HEADER = 64
SESSIONS = ["keyboard", "serial", "stall", "storage", "unplug"]


def session(name: str, tmp_path: Path) -> Recording:
    return recorded(tmp_path, packets_of(name))


def recorded(tmp_path: Path, packets: Iterable[Shown]) -> Recording:
    (found,) = read(tmp_path, classic(packets, USB_LINUX_MMAPPED))
    return found


def read(tmp_path: Path, raw: bytes) -> list[Recording]:
    path = tmp_path / "session.pcap"
    path.write_bytes(raw)
    return read_recordings(path)


def check(asked: Recording, replayed: Recording, *, cut: bool = False) -> None:
    """cut: what is not in `replayed` as a whole may differ."""
    device = ReplayedDevice(replayed, speed=0)
    try:
        for exchange, completion in asked_again(asked, device):
            what = f"packet {exchange.number}: {exchange}"
            assert completion.status == exchange.status, what
            if exchange.transfer_type != TransferType.ISOCHRONOUS and not cut:
                assert completion.actual_length == exchange.moved, what
                assert bytes(completion.data) == exchange.data, what
        assert not device.outcome.divergences
    finally:
        device.close()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SESSIONS)
def test_every_form_answers_the_same(name: str, form: str, tmp_path: Path) -> None:
    (replayed,) = read(tmp_path, FORMS[form](packets_of(name)))
    check(session(name, tmp_path), replayed)


def kept_by_usbmon(data: bytes, length: int) -> bytes:
    """With so much of its data as usbmon of a small buffer keeps, which is not a snapshot length."""
    captured = min(int.from_bytes(data[36:40], "little"), length)
    return data[:36] + captured.to_bytes(4, "little") + data[40 : _HEADER + captured]


@pytest.mark.parametrize("by", ["snapshot length", "usbmon"])
def test_data_that_was_cut_is_listed_and_refused_in_strict_mode(by: str, tmp_path: Path) -> None:
    packets = packets_of("storage")
    if by == "usbmon":
        raw = classic([Shown(stamp, kept_by_usbmon(data, 32)) for stamp, data in packets], USB_LINUX_MMAPPED)
    else:
        raw = snapped(packets, _HEADER + 32)
    (cut,) = read(tmp_path, raw)
    (flaw,) = [flaw for flaw in cut.flaws if flaw.startswith("data of ")]
    first = next(one for one in cut.exchanges if one.cut)
    assert f"first in packet {first.answered if first.endpoint & 0x80 else first.number}" in flaw
    with pytest.raises(CaptureError, match="cannot be replayed strictly: data of"):
        ReplayedDevice(cut, match="strict")
    check(session("storage", tmp_path), cut, cut=True)


def test_descriptors_that_were_cut_are_not_sent_in_part(tmp_path: Path) -> None:
    """A configuration that is not whole would be refused: it is rebuilt, as it is where there is none."""
    (cut,) = read(tmp_path, snapped(packets_of("storage"), _HEADER + 20))
    assert any("configuration 0 is not in the recording as a whole" in flaw for flaw in cut.flaws)
    device = ReplayedDevice(cut, speed=0)
    try:
        transfer = Transfer(Urb.control(bytes.fromhex("8006000200000002")))
        device.submit(transfer)
        assert device.wait(transfer, 20.0)
        assert transfer.completion is not None
        assert bytes(transfer.completion.data) == cut.known.configurations[0]
    finally:
        device.close()


def test_languages_of_strings_are_rebuilt(tmp_path: Path) -> None:
    packets = [p for p in packets_of("storage") if not p.data[40:48].startswith(bytes.fromhex("80060003"))]
    recording = recorded(tmp_path, packets)
    assert recording.known.answers[0x80, 0x0300, 0] == bytes.fromhex("04030904")


def is_bulk(packet: Shown) -> bool:
    return packet.data[9] == 3


@pytest.mark.parametrize("name", ["keyboard", "serial", "storage"])
def test_begun_in_mid_session(name: str, tmp_path: Path) -> None:
    """What the host does to every device is not there: it is rebuilt, and what is asked is answered."""
    packets = [packet for packet in packets_of(name) if packet.data[9] != 2]
    late = recorded(tmp_path, packets)
    assert any("configuration descriptor is not in the recording" in flaw for flaw in late.flaws)
    assert any("device descriptor is not in the recording" in flaw for flaw in late.flaws)
    used = {one.endpoint for one in late.exchanges if one.endpoint & 0x0F}
    (configuration,) = late.known.parsed
    assert {e.bEndpointAddress for i in configuration.interfaces for e in i.endpoints} == used
    check(late, late)


@pytest.mark.parametrize("begin", range(1, 12))
def test_begun_in_the_middle_of_a_command(begin: int, tmp_path: Path) -> None:
    """What was left of it is not for whoever comes now."""
    packets = packets_of("storage")
    at = next(at for at, packet in enumerate(packets) if is_bulk(packet)) + begin
    late = recorded(tmp_path, packets[at:])
    first = next(at for at, one in enumerate(late.exchanges) if one.number and not one.endpoint & 0x80)
    check(replace(late, exchanges=late.exchanges[first:]), late)


@pytest.mark.parametrize("name", ["keyboard", "serial", "storage"])
def test_filtered_to_one_endpoint(name: str, tmp_path: Path) -> None:
    packets = [packet for packet in packets_of(name) if packet.data[9] != 2]
    for address in sorted({packet.data[10] for packet in packets}):
        filtered = recorded(tmp_path, [packet for packet in packets if packet.data[10] == address])
        check(filtered, filtered)


@pytest.mark.parametrize("step", [3, 5, 7, 11])
@pytest.mark.parametrize("name", SESSIONS)
def test_with_drops(name: str, step: int, tmp_path: Path) -> None:
    """Every so manyeth packet is not there: what a program asks that is still whole is answered."""
    packets = [packet for at, packet in enumerate(packets_of(name)) if at % step != step - 1]
    dropped = recorded(tmp_path, packets)
    asks = [e for e in dropped.exchanges if not (e.endpoint & 0x80 and e.transfer_type != TransferType.CONTROL)]
    check(replace(dropped, exchanges=asks), dropped, cut=True)


def test_drops_are_reported(tmp_path: Path) -> None:
    raw = pcapng(packets_of("serial"), USB_LINUX_MMAPPED)
    body = struct.pack("<III", 0, 0, 0) + option("<", 5, (7).to_bytes(8, "little"))
    size = struct.pack("<I", len(body) + 12)
    (lossy,) = read(tmp_path, raw + struct.pack("<I", 5) + size + body + size)
    assert "7 packets were lost when it was captured" in lossy.flaws


def test_a_command_whose_answer_was_lost_does_not_get_another_ones(tmp_path: Path) -> None:
    """Bulk-Only Transport: what came after the status of a command belongs to one that is not there."""
    packets = packets_of("storage")
    commands = [at for at, packet in enumerate(packets) if len(packet.data) == _HEADER + 31 and is_bulk(packet)]
    lost = commands[3]
    dropped = recorded(tmp_path, packets[:lost] + packets[lost + 2 :])
    whole = session("storage", tmp_path)
    asked = [one for one in whole.exchanges if not lost < one.number <= commands[4]]
    check(replace(whole, exchanges=asked), dropped)


def test_two_devices_whose_urbs_have_the_same_ids(tmp_path: Path) -> None:
    """Ids are unique only together with the bus and the device."""

    def moved(packet: Shown, device: int) -> Shown:
        data = packet.data
        return Shown(packet.timestamp_ns, bytes(7) + b"\x01" + data[8:11] + bytes([device]) + data[12:])

    def packets(name: str) -> list[Shown]:
        return [packet for packet in packets_of(name) if packet.data[11] != _ROOT_HUB]

    one, other = session("storage", tmp_path), session("serial", tmp_path)
    both = [moved(packet, 7) for packet in packets("storage")] + [moved(packet, 8) for packet in packets("serial")]
    begin = {7: packets("storage")[0].timestamp_ns, 8: packets("serial")[0].timestamp_ns}
    both.sort(key=lambda packet: packet.timestamp_ns - begin[packet.data[11]])
    found = read(tmp_path, classic(both, USB_LINUX_MMAPPED))
    assert [recording.info.busid.split("-")[1] for recording in found] == ["7", "8"]
    check(one, chosen(found, "{:04x}:{:04x}".format(*one.info.vid_pid)))
    check(other, found[1])
