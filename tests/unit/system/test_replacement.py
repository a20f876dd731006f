from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from usbip_capture.system.replacement import Replacement


def test_the_target_is_replaced_at_the_end_only(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with Replacement(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["out"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    replacement = Replacement(target)
    replacement.file.write(b"new")
    replacement.__exit__(ValueError, ValueError("half"), None)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there/out")
    with Replacement(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there/out").read_bytes() == b"new"


def test_a_pipe_is_written_in_place(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    with Replacement(pipe) as file:
        file.write(b"new")
    reader.join(30)
    assert got == [b"new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    replacement = Replacement(target)
    replacement.file.close()
    replacement.file = Path("/dev/full").open("wb")  # noqa: SIM115 (closed by what is tested)
    replacement.file.write(b"new")
    with pytest.raises(OSError, match="No space"):
        replacement.commit()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out"]
