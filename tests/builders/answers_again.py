"""Whether a recording answers as the device did."""

from __future__ import annotations

from tests.builders.asked_again import asked_again
from usbip_capture.comparing.differences import compare
from usbip_capture.comparing.text import lines
from usbip_capture.recorded.conversation import Exchange
from usbip_capture.replayed.device import LOOSE, STRICT, ReplayedDevice
from usbip_capture.replayed.recording import Recording
from usbip_capture.usb.setup import DT_CONFIGURATION, DT_DEVICE, GET_DESCRIPTOR
from usbip_capture.usb.urb import TransferType


def assert_answers_again(recording: Recording) -> int:
    """All of it, asked again in its own order, strictly too unless data were cut; how many transfers that were."""
    asked = 0
    for match in (LOOSE,) if any(exchange.cut for exchange in recording.exchanges) else (STRICT, LOOSE):
        device = ReplayedDevice(recording, match=match, speed=0)
        try:
            for exchange, completion in asked_again(recording, device):
                what = f"packet {exchange.number}: {exchange}"
                asked += 1
                if _is_rebuilt(recording, exchange):
                    continue
                assert completion.status == exchange.status, what
                if exchange.transfer_type != TransferType.ISOCHRONOUS:
                    assert completion.actual_length == exchange.moved, what
                assert bytes(completion.data) == exchange.whole_data, what
            assert not device.outcome.divergences
            assert not device.unused
        finally:
            device.close()
    return asked


def _is_rebuilt(recording: Recording, exchange: Exchange) -> bool:
    """Whether it has a part of a descriptor that the recording does not have as a whole."""
    is_request = exchange.transfer_type == TransferType.CONTROL and exchange.setup[1] == GET_DESCRIPTOR
    return is_request and bool(recording.known.missing) and exchange.setup[3] in (DT_DEVICE, DT_CONFIGURATION)


def assert_equals_itself(recording: Recording) -> None:
    known = recording.known
    assert list(lines(compare(recording.exchanges, recording.exchanges, (known, known), 0.0))) == []
