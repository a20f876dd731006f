"""SLIP framing of the loader's packets.

Ref: RFC 1055; Espressif, esptool documentation, "Serial Protocol", low level protocol
"""

from __future__ import annotations

_END, _ESC, _ESC_END, _ESC_ESC = b"\xc0", b"\xdb", b"\xdb\xdc", b"\xdb\xdd"
_LONGEST = 64 << 10


def encode(packet: bytes) -> bytes:
    """A packet between two END characters."""
    return _END + packet.replace(_ESC, _ESC_ESC).replace(_END, _ESC_END) + _END


class SlipDecoder:
    """Packets out of a stream. What is between two packets is ignored, and so are packets that are too long."""

    def __init__(self) -> None:
        self._inside = False
        self._packet = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The packets that are complete now."""
        packets = []
        pieces = data.split(_END)
        for number, piece in enumerate(pieces):
            if number:
                if self._inside and self._packet:
                    packets.append(self._packet.replace(_ESC_END, _END).replace(_ESC_ESC, _ESC))
                    self._inside = False
                else:  # empty: this END is the beginning of a packet
                    self._inside = True
                self._packet = b""
            if self._inside:
                self._packet += piece
                if len(self._packet) > _LONGEST:
                    self._inside, self._packet = False, b""
        return packets
