"""Tests of two devices of a lab: one by PyUSB, one by its console. Each has a capture, beside the console's log."""

from __future__ import annotations

from typing import Any

import pytest
import usb.core


@pytest.fixture(scope="session")
def usb_device(target: Any) -> Any:
    """The device as PyUSB has it, active for all tests."""
    driver = target.get_driver("UsbipDriver")
    return driver.find()


@pytest.fixture
def console(env: Any) -> Any:
    """The board's console, active for one test."""
    board = env.get_target("board")
    driver = board.get_driver("UsbipSerialDriver")
    yield driver
    board.deactivate(driver)


def test_identity(usb_device: Any) -> None:
    assert (usb_device.idVendor, usb_device.idProduct) == (0x1209, 0x0001)


def test_echo(usb_device: Any) -> None:
    usb_device.write(0x04, b"hello")
    assert bytes(usb_device.read(0x84, 64)) == b"hello"


def test_console(console: Any) -> None:
    console.sendline("hello")
    console.expect("hello")


def test_identity_of_a_recording(usb_recording: Any) -> None:
    """The same without the lab, of what `pytest --usb-record=HOST` has recorded."""
    recorded = usb.core.find(backend=usb_recording("identity", device="1209:0001").backend)
    assert recorded.product == "Demo device"
