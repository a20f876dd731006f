"""A device belongs to the process that opened it."""

from __future__ import annotations

import os

import pytest

from tests.contract.openers import TIMEOUT, bulk_in, bulk_out, run
from tests.programs.forked import forked
from usbip_capture.device import Device, Transfer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_that_closes_it_leaves_it_to_its_parent(device: Device) -> None:
    waiting = Transfer(bulk_in(16))
    device.submit(waiting)
    assert forked(device.close) == 0
    assert run(device, bulk_out(b"to the parent")).status == 0
    assert device.wait(waiting, TIMEOUT)
    assert waiting.completion is not None
    assert bytes(waiting.completion.data) == b"to the parent"
