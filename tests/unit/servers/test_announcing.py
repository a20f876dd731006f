"""What is announced: texts of any device and any name within the limits of DNS-SD, and a network that fails."""

from __future__ import annotations

import logging
import threading
import types
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import wait_until
from usbip_capture.demo.device import INFO
from usbip_capture.servers import announcing
from usbip_capture.servers.announcing import (
    AnnouncedDevice,
    Announcement,
    FurtherPorts,
    instance_name,
    reachable,
    txt_record,
)

DEVICE = AnnouncedDevice(replace(INFO, busid="1-1.4", idVendor=0x303A, idProduct=0x4001), "ESP32-S3")
OTHER = AnnouncedDevice(replace(INFO, busid="2-1", idVendor=0x0403, idProduct=0x6001))


def test_one_device() -> None:
    assert txt_record([DEVICE]) == {
        "version": "1.1.1",
        "transport": "usbip",
        "state": "exporting",
        "count": "1",
        "devices": "1",
        "busid": "1-1.4",
        "vid": "303a",
        "pid": "4001",
        "device1": "1-1.4 303a:4001 ESP32-S3",
    }


def test_none_and_several() -> None:
    none = txt_record([])
    assert (none["state"], none["devices"], none["busid"], none["vid"]) == ("idle", "0", "-", "-")
    two = txt_record([DEVICE, OTHER])
    assert (two["state"], two["count"], two["busid"], two["pid"]) == ("exporting", "2", "multi", "-")
    assert (two["device1"], two["device2"]) == ("1-1.4 303a:4001 ESP32-S3", "2-1 0403:6001")


@given(st.lists(st.text(max_size=300), max_size=40))
def test_every_string_and_all_of_them_fit(names: list[str]) -> None:
    record = txt_record([AnnouncedDevice(INFO, name) for name in names])
    strings = [f"{key}={value}".encode() for key, value in record.items()]
    assert max(map(len, strings)) <= 255
    assert sum(len(string) + 1 for string in strings) <= 1100
    assert record["devices"] == str(len(names))
    assert all(value.isprintable() for value in record.values())
    assert not names or "device1" in record


@given(st.text(max_size=200))
def test_any_name_is_a_name_of_an_instance(text: str) -> None:
    name = instance_name(text)
    assert 0 < len(name.encode()) <= 58
    assert name.isprintable()
    assert "." not in name


def test_a_name_stays_as_it_is() -> None:
    assert instance_name("Prüfstand 3 (Keller)") == "Prüfstand 3 (Keller)"
    assert instance_name("pi.local\n") == "pi-local-"
    assert instance_name(" ") == "usbip-capture"


@pytest.mark.parametrize(
    ("listening", "announced"),
    [
        (["0.0.0.0"], ["192.0.2.7"]),
        ([""], ["192.0.2.7"]),
        (["::"], ["192.0.2.7", "2001:db8::7"]),
        (["192.0.2.7", "127.0.0.1"], ["192.0.2.7"]),
        (["127.0.0.1"], ["127.0.0.1"]),
        (["::1"], ["::1"]),
        (["198.51.100.1"], []),
    ],
)
def test_the_addresses(listening: list[str], announced: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import ifaddr

    ips: list[object] = ["127.0.0.1", "192.0.2.7", ("::1", 0, 0), ("2001:db8::7", 0, 0), ("fe80::7", 0, 2)]
    adapter = types.SimpleNamespace(ips=[types.SimpleNamespace(ip=ip) for ip in ips])
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [adapter])
    assert reachable(listening) == announced


@pytest.mark.parametrize("error", [OSError(101, "Network is unreachable"), RuntimeError("no thread is left")])
def test_a_network_that_fails_is_logged_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = []

    def fail(addresses: list[str]) -> None:
        attempts.append(addresses)
        raise error

    monkeypatch.setattr(announcing, "_responder", fail)
    monkeypatch.setattr(announcing, "_LOOK_AGAIN", 0.01)
    with caplog.at_level(logging.INFO):
        announcement = Announcement("pi", 3240, listening=["127.0.0.1"])
        assert announcement.settled.wait(20)
        wait_until("it is tried again", lambda: len(attempts) > 3)
        announcement.close()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("this server is not announced on the network: ")
    assert message.endswith("; clients must name its address")
    assert announcement.name == ""


def test_no_thread_is_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    announcement = Announcement("pi", 3240)
    announcement.update([DEVICE])
    announcement.close()
    assert "is not announced on the network: can't start new thread" in caplog.text


class Hanging:
    """A responder that does nothing until it may. registered: whether it was asked to announce anything."""

    def __init__(self) -> None:
        self.entered, self.may_go_on, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.registered = False

    def get_service_info(self, *_: object) -> None:
        self.entered.set()
        self.may_go_on.wait()

    def register_service(self, *_: object, **__: object) -> None:
        self.registered = True

    def close(self) -> None:
        self.closed.set()


def test_closing_does_not_wait_for_a_network_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    responder = Hanging()
    monkeypatch.setattr(announcing, "_responder", lambda addresses: responder)
    monkeypatch.setattr(announcing, "_CLOSE_TIMEOUT", 0.01)
    announcement = Announcement("pi", 3240, listening=["127.0.0.1"])
    assert responder.entered.wait(20)
    announcement.close()
    responder.may_go_on.set()
    assert responder.closed.wait(20)
    assert not responder.registered


def test_the_port_of_tls() -> None:
    assert "tls" not in txt_record([])
    assert txt_record([], FurtherPorts(3241))["tls"] == "3241"
