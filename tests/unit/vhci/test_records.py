"""The records are those of usbip."""

from __future__ import annotations

from pathlib import Path

import pytest

from usbip_capture.vhci.records import Origin, Records


def test_as_usbip_writes_them(tmp_path: Path) -> None:
    folder = tmp_path / "vhci_hcd"
    records = Records(str(folder))
    assert records.write(3, Origin("pi.local", "3240", "1-1.2"))
    assert (folder / "port3").read_bytes() == b"pi.local 3240 1-1.2\n"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert records.read(3) == Origin("pi.local", "3240", "1-1.2")
    records.remove(3)
    assert not folder.exists()
    records.remove(3)


def test_the_folder_stays_with_other_records(tmp_path: Path) -> None:
    records = Records(str(tmp_path / "vhci_hcd"))
    for number in (0, 1):
        records.write(number, Origin("pi", "3240", f"1-{number}"))
    records.remove(0)
    assert records.read(0) is None
    assert records.read(1) == Origin("pi", "3240", "1-1")


@pytest.mark.parametrize("text", [b"", b"pi 3240\n", b"pi 3240 1-1 more\n", b"\xff\xfe"])
def test_damaged_records_are_not_known(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "port0").write_bytes(text)
    assert Records(str(tmp_path)).read(0) is None


def test_a_name_with_blanks_is_not_recorded(tmp_path: Path) -> None:
    records = Records(str(tmp_path / "vhci_hcd"))
    for origin in (Origin("a b", "3240", "1-1"), Origin("pi", "3240", "1-1\n9 9"), Origin("pi", "3240", "")):
        assert not records.write(0, origin)
    assert records.read(0) is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not Records(str(tmp_path / "file/vhci_hcd")).write(0, Origin("pi", "3240", "1-1"))
