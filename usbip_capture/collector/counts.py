"""What a collector has seen, and what was wrong with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from usbip_capture.syslog.framing import Framer


@dataclass(slots=True)
class Counts:
    """messages: all that came. less_severe: those that were not wanted.

    too_long, wrong_counts, incomplete: messages with such a flaw; discarded: bytes left out of those too long.
    missed: messages that the reader of the iterator was too slow for. callback_errors: those on which it failed.
    connections: that were accepted, or made to the device. crowded_out, failed_handshakes: of a collector that listens.
    dropped: datagrams that the system dropped as they came faster than they were taken, as Linux reports.
    own_faults: what should not happen.
    """

    messages: int = 0
    less_severe: int = 0
    too_long: int = 0
    wrong_counts: int = 0
    incomplete: int = 0
    discarded: int = 0
    missed: int = 0
    callback_errors: int = 0
    connections: int = 0
    crowded_out: int = 0
    failed_handshakes: int = 0
    dropped: int = 0
    own_faults: int = 0

    def add(self, framer: Framer) -> None:
        """Count what was wrong on a connection that has ended."""
        self.too_long += framer.too_long
        self.wrong_counts += framer.wrong_counts
        self.incomplete += framer.incomplete
        self.discarded += framer.discarded

    def flaws(self) -> list[str]:
        """What is worth reporting, such as `2 too long and cut`; empty if all was well."""
        values = asdict(self)
        return [f"{values[name]} {sentence}" for name, sentence in _SENTENCES.items() if values[name]]


_SENTENCES = {
    "too_long": "too long and cut",
    "wrong_counts": "with a wrong octet count",
    "incomplete": "incomplete at the end of a connection",
    "discarded": "bytes left out of messages that were too long",
    "crowded_out": "connections given up for newer ones",
    "failed_handshakes": "TLS handshakes that failed",
    "dropped": "further ones dropped by the system: they came faster than they could be taken",
    "own_faults": "lost by internal errors",
}
