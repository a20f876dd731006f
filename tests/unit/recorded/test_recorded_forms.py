"""The same session in every form in which captures exist: the same device, the same conversation."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.builders.capture_files import (
    Shown,
    big_endian,
    classic,
    pcapng,
    read_classic,
    usbpcap,
    usbpcap_stages,
    without_padding,
)
from usbip_capture.comparing.differences import compare
from usbip_capture.comparing.text import lines
from usbip_capture.recordings.link_types import USB_LINUX, USB_LINUX_MMAPPED, USBPCAP
from usbip_capture.replayed.recording import Recording, read_recordings

GOLDEN = Path(__file__).parents[2] / "golden"
NAMES = ["keyboard", "serial", "stall", "storage", "unplug", "detach-busy"]


def each(change: Callable[[bytes], bytes], packets: Iterable[Shown]) -> Iterator[Shown]:
    return (Shown(stamp, change(data)) for stamp, data in packets)


def stages(packets: Iterable[Shown]) -> Iterator[Shown]:
    """Control transfers as old versions of USBPcap show them."""
    for stamp, data in packets:
        for one in usbpcap_stages(data) if data[9] == 2 else [usbpcap(data)]:
            yield Shown(stamp, one)


def only_sent(packets: Iterable[Shown]) -> Iterator[Shown]:
    """As before USBPcap 1.2: what is sent is recorded when it is submitted only."""
    for stamp, data in packets:
        if data[9] == 2 or data[10] & 0x80 or data[8] == ord("S"):
            yield Shown(stamp, data)


FORMS: dict[str, Callable[[list[Shown]], bytes]] = {
    "220, big-endian": lambda found: classic(each(big_endian, found), USB_LINUX_MMAPPED, ">"),
    "220, pcapng": lambda found: pcapng(found, USB_LINUX_MMAPPED),
    "220, nanoseconds, gzip": lambda found: gzip.compress(classic(found, USB_LINUX_MMAPPED, tick_ns=1)),
    "189": lambda found: classic(each(without_padding, found), USB_LINUX),
    "189, big-endian": lambda found: classic(each(lambda d: without_padding(big_endian(d)), found), USB_LINUX, ">"),
    "249": lambda found: pcapng(each(usbpcap, found), USBPCAP),
    "249, only submits of OUT": lambda found: pcapng(stages(only_sent(found)), USBPCAP),
    "249, stages": lambda found: pcapng(stages(found), USBPCAP),
}


def packets_of(name: str) -> list[Shown]:
    return read_classic((GOLDEN / name / "server-usbmon.pcap").read_bytes())


def recordings(path: Path, raw: bytes) -> list[Recording]:
    path.write_bytes(raw)
    return read_recordings(path)


def differences(first: Recording, second: Recording) -> list[str]:
    return list(lines(compare(first.exchanges, second.exchanges, (first.known, second.known))))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_every_form_has_the_same_conversation(name: str, form: str, tmp_path: Path) -> None:
    packets = packets_of(name)
    first = recordings(tmp_path / "a", classic(packets, USB_LINUX_MMAPPED))
    second = recordings(tmp_path / "b", FORMS[form](packets))
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert not differences(one, other)
        assert not differences(other, one)
        assert (one.info.busid, one.info.vid_pid, one.info.speed) == (
            other.info.busid,
            other.info.vid_pid,
            other.info.speed,
        )
        assert one.known == other.known
