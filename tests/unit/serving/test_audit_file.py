"""The file of the audit: whole lines, for its owner only, whatever becomes of the disk and of the name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from usbip_capture.server.events import EXPORTED, Event
from usbip_capture.serving.audit_file import AuditFile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permissions and moved files are POSIX's")


def event(number: int, text: str = "") -> Event:
    return Event(EXPORTED, 1e9, busid=str(number), text=text)


def busids(path: Path) -> list[int]:
    return [int(json.loads(line)["busid"]) for line in path.read_text().splitlines()]


@contextmanager
def opened(path: Path, **more: int) -> Iterator[AuditFile]:
    made = AuditFile(str(path), **more)
    try:
        yield made
    finally:
        made.close()


def test_lines_are_appended_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    for start in (0, 2):
        with opened(path) as file:
            assert file.write([event(start), event(start + 1, "\n\x1b[2J\u202e\ud800")]) == 2
    assert busids(path) == [0, 1, 2, 3]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().isascii()


def test_a_file_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    path.write_text("")
    path.chmod(0o644)
    with opened(path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_part_of_a_line_that_a_crash_left_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    path.write_text('{"busid": "1"}\n{"bus')
    with opened(path) as file:
        file.write([event(2)])
    first, torn, last = path.read_text().splitlines()
    assert (json.loads(first)["busid"], torn, json.loads(last)["busid"]) == ("1", '{"bus', "2")


def test_it_is_rotated_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    with opened(path, max_bytes=1000, kept=3) as file:
        for number in range(100):
            file.write([event(number)])
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit", "audit.1", "audit.2", "audit.3"]
    assert all(file.stat().st_size <= 1000 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    found = [number for file in (*reversed(files[1:]), path) for number in busids(file)]
    assert found == list(range(found[0], 100))


@pytest.mark.parametrize("how", ["moved", "removed", "copied and emptied"])
def test_somebody_else_rotates_it(how: str, tmp_path: Path) -> None:
    path = tmp_path / "audit"
    with opened(path) as file:
        file.write([event(1)])
        if how == "moved":
            path.rename(tmp_path / "audit.old")
        elif how == "removed":
            path.unlink()
        else:
            os.truncate(path, 0)
        file.write([event(2)])
    assert busids(path) == [2]
    if how == "moved":
        assert busids(tmp_path / "audit.old") == [1]


def test_one_that_cannot_be_renamed_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "audit"
    (tmp_path / "audit.1").mkdir()
    (tmp_path / "audit.1" / "x").write_text("")
    with opened(path, max_bytes=200, kept=1) as file:
        for number in range(10):
            file.write([event(number)])
    assert busids(path) == list(range(10))
    assert caplog.text.count("cannot be renamed") == 1


def test_a_device_that_is_full(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with opened(Path("/dev/full")) as file, pytest.raises(OSError, match="No space"):
        file.write([event(1)])


def written_until_full(file: AuditFile) -> int:
    number = 0
    try:
        while number < 10_000:
            number += file.write([event(at, "x" * 150) for at in range(number, number + 20)])
    except OSError:
        pass
    return number


def test_a_full_disk_leaves_whole_lines_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode()}")
    try:
        filler = disk / "filler"
        filler.write_bytes(bytes(40 << 10))
        path = disk / "audit"
        with opened(path) as file:
            number = written_until_full(file)
            assert 0 < number < 10_000
            assert path.read_text().endswith("\n")
            assert busids(path) == list(range(number))
            filler.unlink()
            assert file.write([event(number)]) == 1
        assert busids(path) == list(range(number + 1))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_part_of_a_line_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the disk is full."""
    write = os.write
    path = tmp_path / "audit"
    whole = [len(json.dumps({"time": "2001-09-09T01:46:40.000000Z", "kind": "exported", "severity": "info",
                             "busid": str(at)})) + 1 for at in range(3)]  # fmt: skip
    for room in range(sum(whole)):
        path.unlink(missing_ok=True)
        with opened(path) as file:
            monkeypatch.setattr(os, "write", lambda fd, data, room=room: write(fd, data[:room]))
            fits = sum(sum(whole[: at + 1]) <= room for at in range(3))
            if fits:
                assert file.write([event(at) for at in range(3)]) == fits
            else:
                with pytest.raises(OSError, match="no room"):
                    file.write([event(at) for at in range(3)])
            monkeypatch.setattr(os, "write", write)
            assert busids(path) == list(range(fits))


def test_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    file = AuditFile("-")
    file.write([event(1)])
    file.close()
    os.write(1, b"still open\n")
    line, rest = capfd.readouterr().out.splitlines()
    assert (json.loads(line)["busid"], rest, str(file)) == ("1", "still open", "standard output")


def test_a_pipe_is_opened_when_there_is_something_to_write(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with opened(path) as file:
        fd = os.open(path, os.O_RDWR)
        try:
            file.write([event(7)])
            assert json.loads(os.read(fd, 1000))["busid"] == "7"
        finally:
            os.close(fd)


@pytest.mark.parametrize("link", [False, True])
def test_another_file_stays_as_it_is(link: bool, tmp_path: Path) -> None:
    other = tmp_path / "hostname"
    other.write_text("pi\n")
    other.chmod(0o644)
    named = tmp_path / "audit" if link else other
    if link:
        named.symlink_to(other)
    with pytest.raises(FileExistsError, match="it is another file, and not an audit: choose another name"):
        AuditFile(str(named))
    assert other.read_text() == "pi\n"
    assert other.stat().st_mode & 0o777 == 0o644
