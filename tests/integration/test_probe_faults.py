"""Devices and servers that misbehave while they are probed: the capture goes on, or ends with one sentence."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import pytest

from tests.fakes.scripted_device import ScriptedDevice, elsewhere
from tests.fakes.scripted_server import ScriptedServer, ret_submit
from tests.waiting import wait_until
from usbip_capture import PcapWriter
from usbip_capture.errors import ServerLost, UsbipError
from usbip_capture.probe import ProbeEvents, ProbeSession, ProbeSettings
from usbip_capture.servers.address import Selector, ServerAddress

CONFIGURATIONS = 17  # of the device descriptor: bNumConfigurations


class Probe(ProbeEvents):
    """A session against a scripted device, on a thread of its own."""

    def __init__(self, device: ScriptedDevice, **settings: bool) -> None:
        self.states: list[str] = []
        self.stream = io.BytesIO()
        self.error: UsbipError | None = None
        self._server = ScriptedServer(device)
        where = ServerAddress("127.0.0.1", self._server.port)
        self.session = ProbeSession(where, Selector("1-1"), ProbeSettings(**settings), self)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.session.stop()
        self.ended()
        self._server.__exit__(None, None, None)

    def state(self, session: object, text: str) -> None:
        self.states.append(text)

    def listens(self, times: int = 1) -> bool:
        return self.states.count("1-1 listening") >= times

    def ended(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with PcapWriter(self.stream) as writer:
                self.session.run(writer)
        except UsbipError as error:
            self.error = error


@pytest.mark.parametrize("status", [-19, -108])
def test_a_device_that_goes_while_it_is_read_is_waited_for(status: int) -> None:
    device = ScriptedDevice()
    device.control = lambda number, imports: status if imports == 1 and number >= 4 else None
    with Probe(device) as probe:
        wait_until("the device is listened to", probe.listens)
    assert (device.imports, probe.error) == (2, None)
    assert b"device gone" in probe.stream.getvalue()


def test_a_device_that_has_just_come_back_may_need_a_while() -> None:
    device = ScriptedDevice()
    device.reads = lambda seqnum, imports: ret_submit(seqnum, -19) if imports == 1 else None
    device.control = lambda number, imports: -71 if imports in (2, 3) else None
    with Probe(device) as probe:
        wait_until("the device is listened to again", lambda: probe.listens(2))
    assert (device.imports, probe.error) == (4, None)


def test_a_device_that_does_not_answer_at_first_is_an_error() -> None:
    device = ScriptedDevice()
    device.control = lambda number, imports: -71
    with Probe(device) as probe:
        probe.ended()
    assert "cannot be read" in str(probe.error)
    assert "1-1 (1209:0001)" in str(probe.error)


def test_gone_without_the_connection_being_closed() -> None:
    device = ScriptedDevice()
    device.reads = lambda seqnum, imports: ret_submit(seqnum, -19) if imports == 1 else None
    with Probe(device) as probe:
        wait_until("the device is imported again", lambda: probe.listens(2))
        assert any("disconnected" in state for state in probe.states)
    assert probe.error is None
    device = ScriptedDevice()
    device.reads = lambda seqnum, imports: ret_submit(seqnum, -19)
    with Probe(device, reconnect=False) as probe:
        probe.ended()
    assert isinstance(probe.error, ServerLost)
    assert "ENODEV" in str(probe.error)


def changed(offset: int, value: int) -> Callable[[int, bytes | None], bytes | None]:
    """The device descriptor with one byte changed."""

    def change(wValue: int, raw: bytes | None) -> bytes | None:
        if wValue >> 8 != 1 or raw is None:
            return None if wValue == 0x0201 else raw
        return raw[:offset] + bytes([value]) + raw[offset + 1 :]

    return change


def test_a_second_configuration_that_cannot_be_read() -> None:
    device = ScriptedDevice()
    device.descriptor = changed(CONFIGURATIONS, 2)
    with Probe(device) as probe:
        wait_until("the device is listened to", probe.listens)
    assert probe.error is None


def test_no_configuration_at_all() -> None:
    device = ScriptedDevice()
    device.descriptor = changed(CONFIGURATIONS, 0)
    with Probe(device) as probe:
        wait_until("the device is imported", lambda: "1-1 imported" in probe.states)
    assert probe.error is None
    assert b"no configuration" in probe.stream.getvalue()


def test_numbers_that_are_out_of_range() -> None:
    with Probe(ScriptedDevice(elsewhere(0xFFFFFFFF, 0xFFFFFFFF))) as probe:
        wait_until("the device is listened to", probe.listens)
    assert probe.error is None


def test_stopping_before_the_device_is_there() -> None:
    device = ScriptedDevice()
    asked: list[int] = []
    device.control = lambda number, imports: asked.append(number)
    probe = Probe(device)
    probe.session.connect()
    probe.session.stop()
    with probe:
        probe.ended()
    assert (asked, probe.error) == ([], None)


def test_empty_answers_are_not_asked_for_as_fast_as_it_can() -> None:
    device = ScriptedDevice()
    asked: list[int] = []

    def empty(seqnum: int, imports: int) -> bytes:
        asked.append(seqnum)
        return ret_submit(seqnum)

    device.reads = empty
    with Probe(device) as probe:
        wait_until("the device is listened to", probe.listens)
        wait_until("some answers", lambda: len(asked) > 40)
        before = len(asked)
        threading.Event().wait(0.5)
        # Without pauses it is thousands.
        assert len(asked) - before < 400
