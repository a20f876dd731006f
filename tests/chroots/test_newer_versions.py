"""The plug-in under newer versions of tshark: listed, configured, captured, decoded, refused."""

from __future__ import annotations

import re

import pytest

from tests.chroots.conftest import Chroot

HOST = ["-o", "extcap.usbip_remote.host:demo"]


def version(chroot: Chroot) -> str:
    return chroot.tshark("--version").stdout.splitlines()[0]


def test_listed(chroot: Chroot) -> None:
    done = chroot.tshark("-D")
    assert "usbip-remote (USB/IP remote)" in done.stdout, version(chroot)
    assert "invalid type" not in done.stdout + done.stderr
    assert "No display" not in done.stdout


def test_link_types(chroot: Chroot) -> None:
    assert "USB_LINUX_MMAPPED" in chroot.tshark("-L", "-i", "usbip-remote").stdout


def test_captured_and_decoded(chroot: Chroot) -> None:
    fields = [
        part
        for name in ("frame.interface_name", "usb.idVendor", "usbhid.data", "frame.comment", "usb.urb_type")
        for part in ("-e", name)
    ]
    done = chroot.tshark("-i", "usbip-remote", *HOST, "-c", "80", "-T", "fields", *fields)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(rows) == 80, version(chroot) + done.stderr
    assert {row[0] for row in rows} == {"usbip0"}
    assert any(row[1] == "0x1209" for row in rows)
    assert any(row[2] for row in rows)
    assert any("descriptors read" in row[3] for row in rows)
    assert {row[4] for row in rows} == {"'S'", "'C'"}


def test_capture_filter(chroot: Chroot) -> None:
    names = ["-T", "fields", "-e", "usb.endpoint_address"]
    done = chroot.tshark("-i", "usbip-remote", *HOST, "-f", "ep == 0x83", "-c", "10", *names)
    assert done.stdout.split() == ["0x83"] * 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no server given"),
        (["-o", "extcap.usbip_remote.host:no-such.invalid"], "no-such.invalid"),
        ([*HOST, "-o", "extcap.usbip_remote.device:9-9"], "9-9"),
        ([*HOST, "-f", "bulk and"], "capture filter"),
    ],
)
def test_a_failure_is_one_sentence(chroot: Chroot, options: list[str], words: str) -> None:
    done = chroot.tshark("-i", "usbip-remote", *options, "-c", "5")
    (output,) = [line for line in done.stderr.splitlines() if "extcap pipe" in line]
    assert words in output
    assert not re.search("Traceback|Warning", done.stderr)
