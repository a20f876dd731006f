"""Ports of one process that capture into one file, opened and closed again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.builders.recording import INFO, run
from tests.oracles.pcapng_reader import read_capture
from tests.waiting import wait_until
from usbip_capture.capture.sinks import FileSink
from usbip_capture.errors import CaptureError
from usbip_capture.serial_port import capture
from usbip_capture.serial_port.capture import SharedCapture
from usbip_capture.servers.address import ServerAddress

DEMO = ServerAddress("demo")


def test_who_opens_it_again_waits_until_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "port.pcapng"
    closing, go_on, order = threading.Event(), threading.Event(), []
    close = FileSink.close

    def held(sink: FileSink) -> None:
        closing.set()
        assert go_on.wait(20)
        order.append("completed")
        close(sink)

    first = SharedCapture.open(str(path))
    run(first.channel(DEMO, INFO))
    monkeypatch.setattr(FileSink, "close", held)
    closer = threading.Thread(target=first.close)
    closer.start()
    assert closing.wait(20)

    def reopen() -> None:
        second = SharedCapture.open(str(path))
        order.append("opened")
        run(second.channel(DEMO, INFO))
        second.close()

    opener = threading.Thread(target=reopen)
    opener.start()
    file = capture._files.at(str(path.resolve()))
    wait_until("the file is being completed", file.lock.locked)
    go_on.set()
    closer.join(20)
    opener.join(20)
    assert order[:2] == ["completed", "opened"]
    assert len(list(read_capture(path))) == 4


def test_many_threads_that_open_and_close_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "port.pcapng"

    def use() -> None:
        for _ in range(20):
            shared = SharedCapture.open(str(path))
            run(shared.channel(DEMO, INFO))
            shared.close()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(list(read_capture(path))) == 4 * 20 * 2


def test_a_link_names_the_same_file(tmp_path: Path) -> None:
    path, link = tmp_path / "port.pcapng", tmp_path / "link"
    first = SharedCapture.open(str(path))
    link.symlink_to(path)
    assert SharedCapture.open(str(link)) is first
    first.close()
    first.close()


def test_standard_output_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CaptureError, match="give a file"):
        SharedCapture.open("-")
    assert not list(tmp_path.iterdir())
