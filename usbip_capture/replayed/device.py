"""`ReplayedDevice`: a recorded device that answers again as it did."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from usbip_capture.device import Transfer
from usbip_capture.errors import CaptureError, LocalProtocolError
from usbip_capture.recorded.conversation import Exchange
from usbip_capture.recorded.episodes import Episode
from usbip_capture.recorded.idle import idle_of
from usbip_capture.recorded.matching import Matching, Outcome
from usbip_capture.recorded.tags import is_cbw
from usbip_capture.replayed.line import Line
from usbip_capture.replayed.recording import CUT, Recording, chosen, read_recordings
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.device import SimulatedDevice
from usbip_capture.usb.setup import (
    CLEAR_FEATURE,
    DT_CONFIGURATION,
    DT_DEVICE,
    GET_DESCRIPTOR,
    RECIPIENT_ENDPOINT,
    SET_CONFIGURATION,
    PortReset,
    Setup,
    classify,
)
from usbip_capture.usb.status import EPIPE, ESHUTDOWN, GONE
from usbip_capture.usb.urb import DIR_IN, Completion, IsoPacket, TransferType, Urb

#: What a device does when it is asked for what the recording does not have.
STALL, END, GO_ON = "stall", "end", "go-on"
DIVERGING = (STALL, END, GO_ON)
#: How freely what is asked is looked for.
STRICT, LOOSE = "strict", "loose"
MATCHES = (STRICT, LOOSE)
#: A speed at which nothing waits.
AT_ONCE = 0.0

#: Seconds of silence after which a device that is never silent sends its status; shorter than hosts wait.
IDLE = 2.0

_NANO = 1e-9
#: Bytes that wait at an IN endpoint before its host has to read some.
_AHEAD = 1 << 16


@dataclass(frozen=True)
class _Descriptors(Descriptors):
    """As the recording has them, in all languages. cut: the lengths of those that it has a part of."""

    answers: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    cut: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def find(self, setup: Setup) -> bytes | None:
        if setup.wValue >> 8 in (DT_DEVICE, DT_CONFIGURATION) and (whole := super().find(setup)) is not None:
            return whole  # what the recording has may be a part of it
        key = (setup.bmRequestType, setup.wValue, setup.wIndex)
        found = self.answers.get(key)
        return found.ljust(self.cut.get(key, 0), b"\0") if found is not None else super().find(setup)


class ReplayedDevice(SimulatedDevice):
    """The device of a recording, from one import to its end.

    recording: of `read_recordings`, or the path of a capture with one device, or with the one that `device` names.
    match: `loose`, where independent endpoints may be asked in any order, and again what was asked once; `strict`, the
    order of the recording. speed: 1 as recorded, 2 twice as fast, 0 at once. diverging: what it does when it is asked
    for what the recording does not have: `stall`, `end` (as if unplugged), `go-on` (as if all were well). mask: what is
    `*` in the recording for each of its bytes, as it was secret.
    Raises CaptureError, DeviceNotFound, LocalProtocolError.
    """

    def __init__(
        self,
        recording: Recording | str | os.PathLike[str],
        *,
        device: str = "",
        match: str = LOOSE,
        speed: float = 1.0,
        diverging: str = STALL,
        mask: Sequence[bytes] = (),
    ) -> None:
        if not isinstance(recording, Recording):
            recording = chosen(read_recordings(recording), device)
        if match not in MATCHES or diverging not in DIVERGING:
            raise LocalProtocolError(f"match is one of {', '.join(MATCHES)}, diverging one of {', '.join(DIVERGING)}")
        if not speed >= 0:
            raise LocalProtocolError(f"speed is {speed!r}: give 1 for as recorded, 2 for twice as fast, 0 for at once")
        if match == STRICT and any(CUT in flaw for flaw in recording.flaws):
            cut = next(flaw for flaw in recording.flaws if CUT in flaw)
            raise CaptureError(f"{recording.name} cannot be replayed strictly: {cut}")
        known = recording.known
        super().__init__(
            recording.info, _Descriptors(known.device, known.configurations, answers=known.answers, cut=known.cut)
        )
        self._varying = known.varying
        self._diverging = diverging
        self._mask = [secret for secret in mask if secret]
        self._speed = speed
        self._conversation = recording.conversation
        self._matching = Matching(recording.exchanges, self._conversation, strict=match == STRICT)
        self._deciding = threading.RLock()
        self._begun: deque[tuple[Episode, bytes]] = deque()  # of OUT transfers that are about to be completed
        self._commands: dict[int, bytes] = {}  # function -> the command of Bulk-Only Transport that goes on
        self._idle = idle_of(recording.exchanges, known)
        self._quiet_since: dict[int, float] = {}
        self._watched: set[int] = set()  # endpoints whose silence has a timer
        self._lines = {address: Line(self, address) for address in self._conversation.functions}
        self._isochronous = {a: self._conversation.packets(a) for a in self._conversation.isochronous}
        self._configured = False
        self._all_asked: float | None = None

    @property
    def outcome(self) -> Outcome:
        """What was asked so far, and where it differs from the recording."""
        return self._matching.outcome

    @property
    def unused(self) -> Sequence[Exchange]:
        """What the recording has, and was not asked so far."""
        with self._deciding:
            return self._matching.unused

    def submit(self, transfer: Transfer) -> None:
        try:
            super().submit(transfer)
        except CaptureError as error:
            self.lose(str(error))
            if transfer.completion is None:
                transfer.finish(Completion(-ESHUTDOWN))
        if not self._speed and not self._matching.left:
            for line in list(self._lines.values()):
                if line.ends:
                    line.go_on()

    def lose(self, reason: str) -> None:
        """The recording cannot be read any more."""
        if not self._gone:
            self._leave(-ESHUTDOWN)
            if self._on_lost is not None:
                self._on_lost(f"device {self.info} cannot be replayed any further: {reason}")

    # -- control transfers

    def _control(self, urb: Urb) -> Completion:
        setup, sent = bytes(urb.setup), self._masked(bytes(urb.data))
        kind = Setup.unpack(setup)
        if not kind.bmRequestType & 0x60:
            if (kind.bmRequestType, kind.wValue, kind.wIndex) in self._varying and kind.bRequest == GET_DESCRIPTOR:
                in_turn = self._recorded(setup, sent, urb)
                if in_turn is not None:
                    return in_turn
            completion = super()._control(urb)
            if kind.bRequest == SET_CONFIGURATION and not completion.status and kind.wValue:
                self._configure()
            elif kind.bRequest == CLEAR_FEATURE and kind.bmRequestType == RECIPIENT_ENDPOINT:
                self._line(kind.wIndex & 0x8F).go_on()
            return completion if not completion.status else self._recorded(setup, sent, urb) or completion
        if isinstance(classify(setup), PortReset):
            self._standard.halted.clear()
            return self._recorded(setup, sent, urb) or Completion(0)
        with self._deciding:
            found = self._matching.request(setup, sent)
        if found is None:
            return self._diverged(urb)
        if self.is_unplugged_by(found.status, found.answered):
            self.end()
        if not found.status and not kind.bmRequestType & DIR_IN:
            function = self._conversation.function_of_request(kind.bmRequestType & 0x1F, kind.wIndex)
            self._begin(Exchange(0, 0, TransferType.CONTROL, 0, setup, sent), function)
        return _answer_of(found, urb)

    def _recorded(self, setup: bytes, sent: bytes, urb: Urb) -> Completion | None:
        """What a standard request that descriptors do not answer has brought."""
        with self._deciding:
            if not self._matching.has(setup, sent):
                return None
            found = self._matching.request(setup, sent)
        return None if found is None else _answer_of(found, urb)

    def _configure(self) -> None:
        """What comes by itself comes from now on."""
        if self._configured:
            return
        self._configured = True
        for address in self._conversation.streams:
            self._line(address).play(self._conversation.stream(address), b"")
        for episode in self._conversation.unasked():
            self._play(episode, b"")

    # -- what is sent to it

    def _start(self, transfer: Transfer) -> Completion | None:
        completion = super()._start(transfer)
        urb = transfer.urb
        if completion is None or completion.status or urb.transfer_type == TransferType.ISOCHRONOUS:
            return completion
        sent = self._masked(bytes(urb.data))
        asked = Exchange(0, 0, urb.transfer_type, urb.endpoint, sent=sent, length=urb.length)
        function = self._conversation.function_of(urb.endpoint)
        with self._deciding:
            episode = self._matching.begins(asked, function)
        if is_cbw(sent):
            self._commands[function] = sent
        if episode is None:
            return self._diverged(urb)
        if episode.ask is not None and self.is_unplugged_by(episode.ask.status, episode.ask.answered):
            self.end()
            return Completion(episode.ask.status)
        if episode.ask is not None and episode.ask.status and episode.ask.status not in GONE:
            if episode.ask.status == -EPIPE:
                self._standard.halted.add(urb.endpoint)
            self._hurry(function)
            self._play(episode, self._commands.get(function, sent))  # as a disk's status that it refuses the data
            return Completion(episode.ask.status, self._conversation.asked(episode.at).moved)
        # The status of a command comes after its data, and has the tag of the command.
        self._begun.append((episode, self._commands.get(function, sent)))
        return completion

    def _masked(self, data: bytes) -> bytes:
        for secret in self._mask:
            data = data.replace(secret, b"*" * len(secret))
        return data

    def received(self, address: int, data: bytes) -> None:
        if self._begun:
            self._hurry(self._conversation.function_of(address))
            self._play(*self._begun.popleft())

    def _begin(self, asked: Exchange, function: int) -> None:
        """A request was made that may be what the device answers with a transfer."""
        with self._deciding:
            episode = self._matching.begins(asked, function)
        if episode is not None:
            self._hurry(function)
            self._play(episode, b"")

    def _hurry(self, function: int) -> None:
        """What a function was still to send comes now: when it was asked for more, it had come."""
        for address, line in list(self._lines.items()):
            if self._conversation.function_of(address) == function and address not in self._conversation.streams:
                line.hurry()

    def _play(self, episode: Episode, asked: bytes) -> None:
        for address, found in self._conversation.answers(episode):
            self._line(address).play(found, asked)

    def _diverged(self, urb: Urb) -> Completion:
        if self._diverging == END:
            self.end()
        if self._diverging == GO_ON:
            length = 0 if urb.endpoint & DIR_IN else urb.length
            return Completion(0, length)
        if urb.transfer_type != TransferType.CONTROL:
            self._standard.halted.add(urb.endpoint)
        return Completion(-EPIPE)

    def is_unplugged_by(self, status: int, number: int) -> bool:
        """Whether a completion, of this packet, was the end of the device: a system flushes with the same status."""
        return status in GONE and number > self._conversation.exchanges.last_alive

    @property
    def ends_at(self) -> float | None:
        """When it can be unplugged, of the monotonic clock; None: not before all else has been asked.

        At once, that is as long after the last request as it was: it is not what the device answers to one.
        """
        if self._speed:
            return 0.0
        if self._matching.left:
            return None
        if self._all_asked is None:
            self._all_asked = time.monotonic()
        return self._all_asked + self._conversation.exchanges.seconds_to_end

    def end(self) -> None:
        """Be unplugged, on a thread of its own: this may be in the middle of a submit."""
        threading.Thread(target=self.unplug, name="replay-ends", daemon=True).start()

    # -- what comes of it

    def _line(self, address: int) -> Line:
        line = self._lines.get(address)
        if line is None:
            line = self._lines[address] = Line(self, address)
        return line

    def delay(self, after_ns: int) -> float:
        """Seconds until something happens that took so long."""
        return after_ns * _NANO / self._speed if self._speed else 0.0

    def _pump(self, address: int) -> None:
        super()._pump(address)
        line = self._lines.get(address)
        if line is not None and (line.fault or line.waits):
            line.read()
        if address in self._idle:
            with self._lock:
                self._quiet_since[address] = time.monotonic()
            self._after_silence(address, IDLE)

    def _after_silence(self, address: int, seconds: float) -> None:
        with self._lock:
            if address in self._watched or not self._waiting.get(address):
                return
            self._watched.add(address)
        self.timetable.after(seconds, lambda: self._silent(address))

    def _silent(self, address: int) -> None:
        with self._lock:
            self._watched.discard(address)
            left = self._quiet_since[address] + IDLE - time.monotonic()
            is_over = left <= 0 and bool(self._waiting.get(address))
        if is_over:
            self.feed(address, self._idle[address])
        else:
            self._after_silence(address, max(left, 0.0))

    def fail(self, address: int, status: int, data: bytes) -> None:
        """The transfer of an IN endpoint that waits longest ends with an error."""
        with self._lock:
            waiting = self._waiting.get(address)
            transfer = waiting.popitem(last=False)[0] if waiting else None
        if transfer is not None:
            data = data[: transfer.urb.length]
            transfer.finish(Completion(status, len(data), data))

    @property
    def halted(self) -> set[int]:
        """Endpoints that are."""
        return self._standard.halted

    def has_room(self, address: int) -> bool:
        """Whether a host reads fast enough what an IN endpoint has for it."""
        with self._lock:
            queue = self._queues.get(address)
            return queue is None or queue.size < _AHEAD

    def _iso_in(self, urb: Urb, frame: int) -> Completion:
        recorded = self._isochronous.get(urb.endpoint)
        source = next(recorded, None) if recorded is not None else None
        if source is None:
            return super()._iso_in(urb, frame)
        packets, data, at = [], b"", 0
        for place, packet in enumerate(urb.packets):
            was = source.packets[place] if place < len(source.packets) else IsoPacket(0, 0)
            piece = source.data[at : at + was.actual_length].ljust(was.actual_length, b"\0")[: packet.length]
            at += was.actual_length
            packets.append(IsoPacket(packet.offset, packet.length, len(piece), was.status))
            data += piece
        return Completion(0, len(data), data, frame, packets=packets)


def _answer_of(found: Exchange, urb: Urb) -> Completion:
    if urb.endpoint & DIR_IN:
        data = found.whole_data[: urb.length]
        return Completion(found.status, len(data), data)
    return Completion(found.status, found.moved if found.status else urb.length)
