"""Figures of a server, out of its metrics."""

from __future__ import annotations

import math

import pytest

from usbip_capture.errors import UsbipError
from usbip_capture.fleet.answers import MAX_NUMBER
from usbip_capture.fleet.figures import DeviceFigures, ask_figures, parse_figures, total
from usbip_capture.fleet.members import Member

MEMBER = Member("pi")
TEXT = """\
usbip_build_info{version="0.1.0"} 1
usbip_clients 2
usbip_refused_total 3
process_resident_memory_bytes 1000
usbip_device_info{busid="1-1",vid="303a",pid="4001",product="Board",serial="S1"} 1
usbip_device_info{busid="1-2",vid="303a",pid="4002",product="",serial=""} 1
usbip_urbs_total{busid="1-1",endpoint="0x81",direction="in",type="bulk"} 10
usbip_urbs_total{busid="1-1",endpoint="0x01",direction="out",type="bulk"} 5
usbip_bytes_total{busid="1-1",endpoint="0x81",direction="in",type="bulk"} 100
usbip_bytes_total{busid="1-1",endpoint="0x01",direction="out",type="bulk"} 50
usbip_urb_errors_total{busid="1-1",endpoint="0x81",direction="in",type="bulk"} 1
usbip_urbs_unlinked_total{busid="1-1",endpoint="0x81",direction="in",type="bulk"} 4
usbip_urb_duration_seconds_bucket{busid="1-1",endpoint="0x81",le="0.001"} 5
usbip_urb_duration_seconds_bucket{busid="1-1",endpoint="0x81",le="0.002"} 10
usbip_urb_duration_seconds_bucket{busid="1-1",endpoint="0x81",le="+Inf"} 10
"""


def test_what_is_counted() -> None:
    found = parse_figures(MEMBER, TEXT)
    assert (found.version, found.clients, found.refused, found.memory) == ("0.1.0", 2, 3, 1000)
    board = found.devices["1-1"]
    assert (board.vid_pid, board.product, board.serial) == ("303a:4001", "Board", "S1")
    assert (board.urbs, board.bytes_in, board.bytes_out, board.errors, board.unlinked) == (15, 100, 50, 1, 4)
    assert found.devices["1-2"].urbs == 0
    assert total([found.total, found.total]).urbs == 30


def test_quantiles_are_those_of_prometheus() -> None:
    board = parse_figures(MEMBER, TEXT).devices["1-1"]
    assert board.quantile(0.5) == pytest.approx(0.001)
    assert board.quantile(0.75) == pytest.approx(0.0015)
    assert board.quantile(1) == pytest.approx(0.002)
    assert DeviceFigures().quantile(0.5) is None
    beyond = DeviceFigures(times={0.001: 0, math.inf: 2})
    assert beyond.quantile(0.5) == pytest.approx(0.001)  # as far as it is known


def test_numbers_and_bounds_of_strangers() -> None:
    text = 'usbip_urbs_total{busid="1"} 1e300\nusbip_clients -5\n'
    text += "".join(f'usbip_urb_duration_seconds_bucket{{busid="1",le="{at}"}} {9 - at % 9}\n' for at in range(1000))
    text += 'usbip_urb_duration_seconds_bucket{busid="1",le="NaN"} 3\n'
    found = parse_figures(MEMBER, text + "".join(f'usbip_urbs_total{{busid="x{at}"}} 1\n' for at in range(5000)))
    assert found.clients == 0
    assert found.devices["1"].urbs == MAX_NUMBER
    assert len(found.devices["1"].times) < 200
    assert found.devices["1"].quantile(0.5) is not None
    assert len(found.devices) <= 1024


def test_who_has_no_dashboard() -> None:
    (alone, broken) = ask_figures([MEMBER, Member("x", problem=UsbipError("no token"))])
    assert "no dashboard of pi is known" in str(alone.error)
    assert str(broken.error) == "no token"
