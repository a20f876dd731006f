"""Runs the converter on recordings made for tests."""

from __future__ import annotations

import io
import tempfile
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from tests.oracles.pcapng_reader import CapturedInterface, CapturedRecord, read_items
from usbip_capture.capture.sinks import StreamSink
from usbip_capture.convert.converter import CHUNK, Converter
from usbip_capture.convert.output import PcapngOutput
from usbip_capture.recordings.source import Source
from usbip_capture.records.usbmon import UsbmonRecord


@dataclass
class Converted:
    """What came out of a recording. counts: what was not as it should be. raw: the capture."""

    converter: Converter
    counts: Counter[str]
    raw: bytes

    @property
    def items(self) -> list[CapturedInterface | CapturedRecord]:
        with tempfile.NamedTemporaryFile(suffix=".pcapng") as file:
            file.write(self.raw)
            file.flush()
            return list(read_items(file.name))

    @property
    def interfaces(self) -> list[CapturedInterface]:
        return [item for item in self.items if isinstance(item, CapturedInterface)]

    @property
    def records(self) -> list[CapturedRecord]:
        return [item for item in self.items if isinstance(item, CapturedRecord)]

    def urbs(self, interface: str = "usbip0") -> list[tuple[object, ...]]:
        """The events of an interface, without their times and the number of the session."""
        return [event(r.usb) for r in self.records if r.usb and r.interface.name == interface]


def event(usb: UsbmonRecord) -> tuple[object, ...]:
    return (
        chr(usb.type), usb.id & 0xFFFFFFFF, usb.xfer_type, usb.epnum, usb.busnum, usb.devnum, usb.status, usb.length,
        usb.setup, usb.interval, tuple(usb.packets), usb.data,
    )  # fmt: skip


def convert(recording: bytes, *, ports: Container[int] | None = None, record_unlinks: bool = False) -> Converted:
    """The capture of USB that is in a recording of TCP."""
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tcp.pcap"
        path.write_bytes(recording)
        source = Source(path, chunk=CHUNK)
        try:
            output = PcapngOutput(StreamSink(out, "memory"), record_unlinks=record_unlinks)
            converter = Converter(source, output, ports=ports)
            converter.run()
        finally:
            source.close()
    return Converted(converter, converter.counts, out.getvalue())
