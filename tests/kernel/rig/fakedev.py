"""A USB device played by Python, for what QEMU's own devices cannot do: isochronous IN, packets of uneven length,
errors, stalls and NAKs on demand.

Interface 0 is vendor specific:
  bulk OUT 0x05 -> bulk IN 0x84   loopback; IN waits (NAKs) while there is nothing
  interrupt IN 0x83               8-byte reports, see request 0x31
  vendor requests                 0x10  OUT stores its data, IN returns it
                                  0x30  makes the next wValue bulk IN transfers stall
                                  0x31  sends wValue interrupt reports
                                  0x32  makes every wValue-th isochronous IN packet fail; 0: none
                                  any other stalls
Interfaces 1 and 2 are a UAC1 microphone on isochronous IN 0x81, 44.1 kHz stereo, whose samples count up. At full speed
a packet each 1 ms holds 44 or 45 frames (176 or 180 bytes) of the 192 bytes there could be; at high speed one each
125 µs holds 5 or 6 (20 or 24 bytes of 32).
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from tests.kernel.rig.usbredir import (
    FULL_SPEED,
    HIGH_SPEED,
    Connection,
    ControlPacket,
    Endpoint,
    Kind,
    Status,
    unpack_bulk,
    unpack_control,
)

BULK_OUT, BULK_IN, INTERRUPT_IN, ISO_IN = 0x05, 0x84, 0x83, 0x81
STORE, STALL_BULK_IN, SEND_REPORTS, FAIL_ISO_IN = 0x10, 0x30, 0x31, 0x32
SAMPLE_RATE = 44100

_DEVICE = bytes.fromhex("12 01 0002 000000 40 0912 0100 0001 01 02 03 01")
_STRINGS = ("", "usbip-rig", "fake device", "0001")
_STREAMING_INTERFACE = 2


class FakeDevice:
    """Listens on a Unix socket, whose path is for `Guest.plug("redir", socket=...)`; takes one connection."""

    def __init__(self, path: Path, *, high_speed: bool = False) -> None:
        self.path = path
        self._speed = HIGH_SPEED if high_speed else FULL_SPEED
        bulk, iso, self._packet_rate = (512, 32, 8000) if high_speed else (64, 192, 1000)
        self._interfaces = _interfaces(bulk, iso)
        body = b"".join(self._interfaces)
        total, bNumInterfaces = 9 + len(body), len({i[2] for i in self._interfaces})
        self._configuration = struct.pack("<BBHBBBBB", 9, 2, total, bNumInterfaces, 1, 0, 0x80, 50) + body
        self._endpoints = {
            BULK_OUT: Endpoint(2, 0, 0, bulk),
            BULK_IN: Endpoint(2, 0, 0, bulk),
            INTERRUPT_IN: Endpoint(3, 10, 0, 8),
            ISO_IN: Endpoint(1, 1, _STREAMING_INTERFACE, iso),
        }
        self._alternate: dict[int, int] = {}
        self._lock = threading.RLock()
        self._loopback: deque[bytes] = deque()
        self._waiting: deque[tuple[int, int]] = deque()  # bulk IN: id and length
        self._reports: deque[bytes] = deque()
        self._polled = False
        self._stored = b""
        self._stalls = self._iso_error_every = 0
        self._stop_stream = threading.Event()
        self._stream: threading.Thread | None = None
        self._connection: Connection
        self._listener = self._sock = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, name="fake device", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Plugged in, it is gone now."""
        for sock in (self._listener, self._sock):
            with contextlib.suppress(OSError):  # it may never have been connected, or not be so any more
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        handlers: dict[int, Callable[[int, bytes], None]] = {
            Kind.HELLO: self._hello,
            Kind.RESET: self._reset,
            Kind.SET_CONFIGURATION: self._set_configuration,
            Kind.GET_CONFIGURATION: self._get_configuration,
            Kind.SET_ALT_SETTING: self._set_alternate,
            Kind.GET_ALT_SETTING: self._get_alternate,
            Kind.START_ISO_STREAM: self._start_iso,
            Kind.STOP_ISO_STREAM: self._stop_iso,
            Kind.START_INTERRUPT_RECEIVING: self._start_interrupt,
            Kind.STOP_INTERRUPT_RECEIVING: self._stop_interrupt,
            Kind.CANCEL_DATA_PACKET: self._cancel,
            Kind.CONTROL_PACKET: self._control,
            Kind.BULK_PACKET: self._bulk,
        }
        with contextlib.suppress(OSError):
            self._sock, _ = self._listener.accept()
            with self._sock:
                try:
                    self._connection = Connection(self._sock)
                    while True:
                        kind, ident, content = self._connection.receive()
                        if kind in handlers:
                            handlers[kind](ident, content)
                finally:
                    self._end_stream()

    # What QEMU reports and asks

    def _hello(self, ident: int, content: bytes) -> None:
        self._describe()
        self._connection.send_connect(self._speed, _DEVICE)

    def _describe(self) -> None:
        """The interfaces and endpoints that there are now."""
        first = {i[2]: i for i in reversed(self._interfaces)}
        self._connection.send_interfaces([first[number] for number in sorted(first)])
        self._connection.send_endpoints(
            {
                address: endpoint
                for address, endpoint in self._endpoints.items()
                if endpoint.interface != _STREAMING_INTERFACE or self._alternate.get(_STREAMING_INTERFACE)
            }
        )

    def _reset(self, ident: int, content: bytes) -> None:
        self._end_stream()

    def _set_configuration(self, ident: int, content: bytes) -> None:
        self._alternate.clear()
        self._describe()
        self._connection.send(Kind.CONFIGURATION_STATUS, ident, bytes([Status.SUCCESS, content[0]]))

    def _get_configuration(self, ident: int, content: bytes) -> None:
        self._connection.send(Kind.CONFIGURATION_STATUS, ident, bytes([Status.SUCCESS, 1]))

    def _set_alternate(self, ident: int, content: bytes) -> None:
        self._alternate[content[0]] = content[1]
        self._describe()
        self._connection.send(Kind.ALT_SETTING_STATUS, ident, bytes([Status.SUCCESS, *content[:2]]))

    def _get_alternate(self, ident: int, content: bytes) -> None:
        current = self._alternate.get(content[0], 0)
        self._connection.send(Kind.ALT_SETTING_STATUS, ident, bytes([Status.SUCCESS, content[0], current]))

    # Control

    def _control(self, ident: int, content: bytes) -> None:
        packet, data = unpack_control(content)
        with self._lock:
            answer = self._request(packet, data)
        if answer is None:
            packet, data = packet._replace(status=Status.STALL, wLength=0), b""
        elif packet.endpoint & 0x80:
            data = answer[: packet.wLength]
            packet = packet._replace(status=Status.SUCCESS, wLength=len(data))
        else:
            packet, data = packet._replace(status=Status.SUCCESS), b""
        self._connection.send_control(ident, packet, data)
        self._pump()

    def _request(self, packet: ControlPacket, data: bytes) -> bytes | None:
        """The data stage of an IN request; None for a stall."""
        match packet.bmRequestType, packet.bRequest:
            case 0x80, 6:
                return self._descriptor(packet.wValue >> 8, packet.wValue & 0xFF)
            case 0x80, 0:  # GET_STATUS
                return bytes(2)
            case 0x02, 1:  # CLEAR_FEATURE(ENDPOINT_HALT)
                return b""
            case ((0xC0 | 0xC1 | 0xC2), 0x10):
                return self._stored
            case ((0x40 | 0x41 | 0x42), 0x10):
                self._stored = data
            case 0x40, 0x30:
                self._stalls = packet.wValue
            case 0x40, 0x31:
                self._reports.extend(b"report%2d" % (n % 100) for n in range(packet.wValue))
            case 0x40, 0x32:
                self._iso_error_every = packet.wValue
            case _:
                return None
        return b""

    def _descriptor(self, descriptor_type: int, index: int) -> bytes | None:
        if descriptor_type == 1:
            return _DEVICE
        if descriptor_type == 2 and index == 0:
            return self._configuration
        if descriptor_type == 3 and index == 0:
            return bytes([4, 3, 9, 4])
        if descriptor_type == 3 and index < len(_STRINGS):
            text = _STRINGS[index].encode("utf-16-le")
            return bytes([2 + len(text), 3]) + text
        return None

    # Bulk and interrupt

    def _bulk(self, ident: int, content: bytes) -> None:
        endpoint, length, data = unpack_bulk(content)
        with self._lock:
            if endpoint & 0x80:
                self._waiting.append((ident, length))
            else:
                self._loopback.append(data)
                self._connection.send_bulk(ident, endpoint, Status.SUCCESS, length)
        self._pump()

    def _pump(self) -> None:
        """Answer what has been waiting, as far as there is something."""
        with self._lock:
            while self._polled and self._reports:
                self._connection.send_interrupt(INTERRUPT_IN, self._reports.popleft())
            while self._waiting and self._stalls:
                self._stalls -= 1
                self._connection.send_bulk(self._waiting.popleft()[0], BULK_IN, Status.STALL)
            while self._waiting and self._loopback:
                (ident, length), data = self._waiting.popleft(), self._loopback.popleft()
                if len(data) > length:
                    self._loopback.appendleft(data[length:])
                    data = data[:length]
                self._connection.send_bulk(ident, BULK_IN, Status.SUCCESS, len(data), data)

    def _cancel(self, ident: int, content: bytes) -> None:
        with self._lock:
            for entry in list(self._waiting):
                if entry[0] == ident:
                    self._waiting.remove(entry)
                    self._connection.send_bulk(ident, BULK_IN, Status.CANCELLED)

    def _start_interrupt(self, ident: int, content: bytes) -> None:
        self._polled = True
        self._connection.send(Kind.INTERRUPT_RECEIVING_STATUS, ident, bytes([Status.SUCCESS, content[0]]))
        self._pump()

    def _stop_interrupt(self, ident: int, content: bytes) -> None:
        self._polled = False
        self._connection.send(Kind.INTERRUPT_RECEIVING_STATUS, ident, bytes([Status.SUCCESS, content[0]]))

    # Isochronous

    def _start_iso(self, ident: int, content: bytes) -> None:
        self._end_stream()
        self._connection.send(Kind.ISO_STREAM_STATUS, ident, bytes([Status.SUCCESS, content[0]]))
        self._stream = threading.Thread(target=self._send_stream, args=(content[0],), name="fake stream", daemon=True)
        self._stream.start()

    def _stop_iso(self, ident: int, content: bytes) -> None:
        self._end_stream()
        self._connection.send(Kind.ISO_STREAM_STATUS, ident, bytes([Status.SUCCESS, content[0]]))

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stop_stream.set()
            self._stream.join()
            self._stop_stream.clear()
            self._stream = None

    def _send_stream(self, endpoint: int) -> None:
        frames, started = 0, time.monotonic()
        for number in itertools.count():
            if number % (self._packet_rate // 1000) == 0:
                early = started + number / self._packet_rate - time.monotonic()
                if self._stop_stream.wait(max(0.0, early)):
                    return
            end = SAMPLE_RATE * (number + 1) // self._packet_rate
            data, status = struct.pack(f"<{end - frames}I", *range(frames, end)), Status.SUCCESS
            frames = end
            if self._iso_error_every and number % self._iso_error_every == 0:
                data, status = b"", Status.IOERROR
            try:
                self._connection.send_iso(number, endpoint, status, data)
            except OSError:
                return


def _interfaces(bulk: int, iso: int) -> list[bytes]:
    """Interface descriptors, each with what follows it, for these two wMaxPacketSizes."""
    bulk_size, iso_size = (struct.pack("<H", size).hex() for size in (bulk, iso))
    return [
        bytes.fromhex(f"09 04 00 00 03 ff 00 00 00  07 05 05 02 {bulk_size} 00  07 05 84 02 {bulk_size} 00")
        + bytes.fromhex("07 05 83 03 0800 0a"),
        # Audio control: a microphone, its terminal leads to USB.
        bytes.fromhex("09 04 01 00 00 01 01 00 00  09 24 01 0001 1e00 01 02")
        + bytes.fromhex("0c 24 02 01 0102 00 02 0300 00 00  09 24 03 02 0101 00 01 00"),
        # Audio streaming: off, then on with two channels of 16 bits at 44 100 Hz.
        bytes.fromhex("09 04 02 00 00 01 02 00 00"),
        bytes.fromhex("09 04 02 01 01 01 02 00 00  07 24 01 02 01 0100  0b 24 02 01 02 02 10 01 44ac00")
        + bytes.fromhex(f"09 05 81 05 {iso_size} 01 00 00  07 25 01 00 00 0000"),
    ]
