"""The toolbar's pipes as Wireshark opens them: state, counters, marks, endpoints, quit; and a window that is gone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oracles.pcapng_reader import read_capture
from tests.programs.extcap_runs import started
from tests.programs.toolbar_pipes import Window
from tests.waiting import wait_until
from usbip_capture.extcap.controls import (
    ADD,
    DEVICE,
    DISABLE,
    INITIALIZED,
    LISTEN,
    LOG,
    MARK,
    SET,
    STATUSBAR,
    pack,
)


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Window]:
    found = Window(tmp_path)
    yield found
    found.close()


def test_a_capture_with_its_toolbar(extcap: Path, window: Window, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    with started(extcap, "--host", "demo", *window.options, "--fifo", str(target)) as process:
        window.open()
        window.send(0, INITIALIZED)
        wait_until("the state", lambda: "1-1 listening" in window.texts(DEVICE, SET))
        wait_until("counters", lambda: any("URBs" in text for text in window.texts(0, STATUSBAR)))
        assert window.texts(DEVICE, DISABLE) == [""]
        assert any("capturing demo" in text for text in window.texts(LOG, ADD))
        window.send(MARK, SET)
        window.send(LISTEN, SET, "0x82")
        wait_until("the log", lambda: any("listening to 0x82" in text for text in window.texts(LOG, ADD)))
        window.send(LISTEN, SET, "nonsense")
        wait_until("the old value is back", lambda: window.texts(LISTEN, SET) == ["0x82"])
        window.send(LISTEN, SET, "none")
        window.raw(b"garbage")
        window.send(MARK, SET)
        wait_until("the second mark", lambda: b"mark 2" in target.read_bytes())
        window.raw(b"Q\0\0\0")
        assert process.wait(20) == 0
        assert process.communicate()[1] == b""
    wait_until("the device's state is no longer shown", lambda: window.texts(DEVICE, SET)[-1] == "")
    assert [text for text in window.texts(LOG, ADD) if "usbip_capture" in text or "INFO" in text] == []
    assert any(re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} mark 1\n", text) for text in window.texts(LOG, ADD))
    marks = [r.interface.name for r in read_capture(target) if any("mark" in c for c in r.comments)]
    assert len(marks) == 2
    assert marks[0] == "usbip0"


def test_a_mark_just_before_the_end(extcap: Path, window: Window, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    with started(extcap, "--host", "demo", "--listen-in", "off", *window.options, "--fifo", str(target)) as process:
        window.open()
        wait_until("the state", lambda: "1-1 imported" in window.texts(DEVICE, SET))
        window.send(MARK, SET)
        wait_until("the log", lambda: any("mark 1" in text for text in window.texts(LOG, ADD)))
        process.terminate()
        assert process.wait(20) == 0
    assert [c for r in read_capture(target) for c in r.comments if "mark 1" in c]


def test_a_window_that_goes_does_not_matter(extcap: Path, window: Window, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    with started(extcap, "--host", "demo", *window.options, "--count", "60", "--fifo", str(target)) as process:
        window.open()
        wait_until("packets", lambda: target.exists() and target.stat().st_size > 4000)
        window.close()
        assert process.wait(30) == 0
        assert process.communicate()[1] == b""
    assert len(list(read_capture(target))) == 60


def test_a_window_that_never_reads_does_not_matter(extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    for name in ("in", "out"):
        os.mkfifo(tmp_path / name)
    # Both ends are open, and nobody reads what is sent: the pipe fills up.
    held = [os.open(tmp_path / name, os.O_RDWR) for name in ("in", "out")]
    options = ["--extcap-control-in", str(tmp_path / "in"), "--extcap-control-out", str(tmp_path / "out")]
    options += ["--log-level", "debug", "--host", "demo", "--count", "60", "--fifo", str(target)]
    with started(extcap, *options) as process:
        os.write(held[0], pack(MARK, SET) * 2000)
        assert process.wait(30) == 0
    for fd in held:
        os.close(fd)
    comments = [c for r in read_capture(target) for c in r.comments if "mark" in c]
    assert len(comments) == len(set(comments)) > 50


def test_pipes_that_are_not_there_do_not_matter(extcap: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pcapng"
    options = ["--extcap-control-in", str(tmp_path / "no"), "--extcap-control-out", str(tmp_path / "nothing")]
    with started(extcap, "--host", "demo", "--count", "10", *options, "--fifo", str(target)) as process:
        assert process.wait(30) == 0
        assert process.communicate()[1] == b""
    assert len(list(read_capture(target))) == 10
