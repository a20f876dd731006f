"""A device opened in each of the ways."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.openers import KINDS, TIMEOUT, Opener, control
from usbip_capture.device import Device
from usbip_capture.usb import setup as requests


@pytest.fixture(params=KINDS)
def opener(request: pytest.FixtureRequest) -> Iterator[Opener]:
    opened = Opener(request.param)
    yield opened
    opened.close()


@pytest.fixture
def device(opener: Opener) -> Device:
    opened = opener.open()
    assert opened.run(control(requests.set_configuration(1)), TIMEOUT).status == 0
    return opened
