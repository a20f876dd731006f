"""Outputs are for their owner's eyes, and names that another user has taken in a shared folder are refused."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from usbip_capture.capture.sinks import open_sink
from usbip_capture.errors import CaptureError
from usbip_capture.extcap import logs
from usbip_capture.options.table import Choices
from usbip_capture.system.private_files import check_owner, open_private
from usbip_capture.system.replacement import Replacement

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no such owners here")
NOBODY = 65534
root_only = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can make another user's file"
)


def capture(path: Path) -> None:
    open_sink(path).close()


def page(path: Path) -> None:
    with Replacement(path) as file:
        file.write(b"page")


def log_file(path: Path) -> None:
    root = logging.getLogger("usbip_capture")
    before = list(root.handlers)
    choices = Choices({})
    choices.log_file = str(path)
    try:
        logs.start(choices, logging.NullHandler())
    finally:
        for handler in set(root.handlers) - set(before):
            root.removeHandler(handler)
            if isinstance(handler, logging.StreamHandler):
                handler.stream.close()


OUTPUTS = pytest.mark.parametrize("output", [capture, page, log_file])


@OUTPUTS
def test_only_the_owner_can_read_it(output: Callable[[Path], None], tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_bytes(b"")
    old.chmod(0o666)
    for path in (new, old):
        output(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@root_only
@OUTPUTS
@pytest.mark.parametrize("kind", ["file", "link", "link to a link", "FIFO"])
def test_a_trap_in_a_shared_folder_is_refused(output: Callable[[Path], None], kind: str, tmp_path: Path) -> None:
    shared, ours = tmp_path / "shared", tmp_path / "ours"
    shared.mkdir()
    shared.chmod(0o1777)
    ours.write_bytes(b"ours")
    trap = named = shared / "trap"
    if kind == "file":
        trap.write_bytes(b"theirs")
    elif kind == "FIFO":
        os.mkfifo(trap)
    else:
        trap.symlink_to(ours)
    if kind == "link to a link":
        named = tmp_path / "link"
        named.symlink_to(trap)
    os.chown(trap, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises((CaptureError, PermissionError), match="belongs to another user"):
        output(named)
    assert ours.read_bytes() == b"ours"
    assert kind != "file" or trap.read_bytes() == b"theirs"


@root_only
def test_what_is_not_shared_or_belongs_to_the_folders_owner_is_written(tmp_path: Path) -> None:
    team, sticky = tmp_path / "team", tmp_path / "sticky"
    for folder, mode in ((team, 0o775), (sticky, 0o1777)):
        folder.mkdir()
        folder.chmod(mode)
        (folder / "theirs").write_bytes(b"old")
        os.chown(folder / "theirs", NOBODY, NOBODY)
    os.chown(sticky, NOBODY, NOBODY)
    for folder in (team, sticky):
        os.close(open_private(str(folder / "theirs")))
        assert (folder / "theirs").read_bytes() == b""


def test_devices_links_of_ours_and_names_that_are_free(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for path in (os.devnull, str(tmp_path / "link"), str(tmp_path / "new")):
        check_owner(path)
        os.close(open_private(path))
    assert (tmp_path / "target").exists()


def test_it_is_emptied_unless_something_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for append, expected in ((False, b"new"), (True, b"newnew"), (False, b"new")):
        fd = open_private(str(path), append=append)
        os.write(fd, b"new")
        os.close(fd)
        assert path.read_bytes() == expected


def test_a_replacement_of_what_has_no_name_is_written_in_place() -> None:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as read_end:
        with Replacement(f"/dev/fd/{theirs}") as file:
            file.write(b"page")
        os.close(theirs)
        assert read_end.read() == b"page"
