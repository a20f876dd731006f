"""Who ends a client is reported, however fast the client's own thread is."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from tests.fakes.raw_client import RawClient
from tests.waiting import wait_until
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.server import Server
from usbip_capture.server.connection import Connection
from usbip_capture.server.events import ENDED, RELEASED
from usbip_capture.server.session import Session

TIMEOUT = 20.0


def test_who_is_ended_while_its_import_is_reported_was_ended_by_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread has not begun to read: it sees that it is to end, and is gone before the one who ends it goes on."""
    importing, going_on = threading.Event(), threading.Event()
    broken_off, urbs = Session.break_off, Connection._urbs

    def imported(connection: Connection, session: Session) -> None:
        importing.set()
        going_on.wait(TIMEOUT)
        urbs(connection, session)

    def overtaken(session: Session) -> None:
        broken_off(session)
        if threading.current_thread() is threading.main_thread():
            going_on.set()
            wait_until("its thread is over", lambda: not server.clients)

    monkeypatch.setattr(Connection, "_urbs", imported)
    monkeypatch.setattr(Session, "break_off", overtaken)
    with closing(Server()) as server:
        server.add(INFO, DemoDevice)
        with closing(RawClient(server.listen("127.0.0.1", 0), INFO.busid).sock):
            assert importing.wait(TIMEOUT)
            assert server.disconnect(INFO.busid)
        found = [(event.kind, event.by) for event in server.events.after(0, 100) if event.kind in (ENDED, RELEASED)]
    assert found == [(ENDED, "user"), (RELEASED, "user")]
