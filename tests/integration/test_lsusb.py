"""Devices out of what lsusb prints: rebuilt exactly from the real program's text, and served by the demo."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.serial_host import SerialHost
from usbip_capture.demo import device as demo
from usbip_capture.demo.lsusb import add_directory
from usbip_capture.errors import ImportRefused, LocalProtocolError
from usbip_capture.server import Server
from usbip_capture.servers.address import Selector
from usbip_capture.servers.address import ServerAddress as Remote
from usbip_capture.simulated.chapter9 import Descriptors
from usbip_capture.simulated.lsusb import parse_lsusb, read_lsusb
from usbip_capture.simulated.serial.acm import acm
from usbip_capture.simulated.serial.ch34x import ch34x
from usbip_capture.simulated.serial.cp210x import cp210x
from usbip_capture.simulated.serial.ftdi import ftdi
from usbip_capture.simulated.serial.line import Notebook
from usbip_capture.uart.settings import LineSettings
from usbip_capture.usb.info import Speed
from usbip_capture.usb.setup import set_configuration
from usbip_capture.usb.urb import TransferType, Urb

# As lsusb prints a port that it could not open: names it knows come from its own lists, some fields have units.
GADGET = """\
Bus 001 Device 007: ID 1209:0001 Generic
Couldn't open device, some information will be missing
Device Descriptor:
  bLength                18
  bDescriptorType         1
  bcdUSB               2.00
  bDeviceClass            2 Communications
  bDeviceSubClass         0
  bDeviceProtocol         0
  bMaxPacketSize0        64
  idVendor           0x1209 Generic
  idProduct          0x0001
  bcdDevice            5.04
  iManufacturer           1 A maker of things
  iProduct                2 Serial port v2.4
  iSerial                 0
  bNumConfigurations      1
  Configuration Descriptor:
    bLength                 9
    bDescriptorType         2
    wTotalLength       0x0043
    bNumInterfaces          2
    bConfigurationValue     2
    iConfiguration          4 (error)
    bmAttributes         0xc0
      Self Powered
    MaxPower                2mA
    Interface Descriptor:
      bLength                 9
      bDescriptorType         4
      bInterfaceNumber        0
      bAlternateSetting       0
      bNumEndpoints           1
      bInterfaceClass         2 Communications
      bInterfaceSubClass      2 Abstract (modem)
      bInterfaceProtocol      1 AT-commands (v.25ter)
      iInterface              0
      CDC Header:
        bcdCDC               1.10
      CDC Call Management:
        bmCapabilities       0x00
        bDataInterface          1
      CDC ACM:
        bmCapabilities       0x02
          line coding and serial state
      CDC Union:
        bMasterInterface        0
        bSlaveInterface         1
      Endpoint Descriptor:
        bLength                 7
        bDescriptorType         5
        bEndpointAddress     0x84  EP 4 IN
        bmAttributes            3
          Transfer Type            Interrupt
          Synch Type               None
          Usage Type               Data
        wMaxPacketSize     0x000a  1x 10 bytes
        bInterval               9
    Interface Descriptor:
      bLength                 9
      bDescriptorType         4
      bInterfaceNumber        1
      bAlternateSetting       0
      bNumEndpoints           2
      bInterfaceClass        10 CDC Data
      bInterfaceSubClass      0
      bInterfaceProtocol      0
      iInterface              0
      Endpoint Descriptor:
        bLength                 7
        bDescriptorType         5
        bEndpointAddress     0x81  EP 1 IN
        bmAttributes            2
        wMaxPacketSize     0x0200  1x 512 bytes
        bInterval               0
      ** UNRECOGNIZED:  03 41 07
      Endpoint Descriptor:
        bLength                 7
        bDescriptorType         5
        bEndpointAddress     0x01  EP 1 OUT
        bmAttributes            2
        wMaxPacketSize     0x0200  1x 512 bytes
        bInterval               0
Device Qualifier (for other device speed):
  bLength                10
  bDescriptorType         6
"""
GADGET_BYTES = (
    "09 02 4600 02 02 04 c0 01"
    "09 04 00 00 01 02 02 01 00 05 24 00 1001 05 24 01 00 01 04 24 02 02 05 24 06 00 01 07 05 84 03 0a00 09"
    "09 04 01 00 02 0a 00 00 00 07 05 81 02 0002 00 034107 07 05 01 02 0002 00"
)
ECHO = GADGET.replace("bDeviceClass            2 Communications", "bDeviceClass          255 Vendor Specific Class")
ECHO = ECHO.replace("bInterfaceClass         2 Communications", "bInterfaceClass       255 Vendor Specific Class")


def test_text_becomes_descriptors() -> None:
    descriptors, speed = parse_lsusb(GADGET)
    assert descriptors.device.hex() == "120100020200004009120100" + "0405" + "010200" + "01"
    assert descriptors.configurations[0] == bytes.fromhex(GADGET_BYTES)
    assert descriptors.strings == ["A maker of things", "Serial port v2.4", "", ""]
    assert speed == Speed.HIGH


@pytest.mark.parametrize(
    ("line", "speed"),
    [
        ("Negotiated speed: Full Speed (12Mbps)", Speed.FULL),
        ("Negotiated speed: Low Speed (1.5Mbps)", Speed.LOW),
        ("Negotiated speed: SuperSpeed (5Gbps)", Speed.SUPER),
    ],
)
def test_newer_versions_print_the_speed(line: str, speed: Speed) -> None:
    assert parse_lsusb(f"Bus 001 Device 007: ID 1209:0001\n{line}\n{GADGET}")[1] == speed


@pytest.mark.parametrize("name", ["demo", "acm", "FT232R", "FT4232H", "CP2105", "CH340"])
def test_the_real_lsusb(name: str, tmp_path: Path) -> None:
    for program in ("lsusb", "umockdev-run"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    peers = [Notebook() for _ in range(4)]
    known: dict[str, Descriptors] = {
        "demo": demo.DESCRIPTORS,
        "acm": acm(peers[0]).descriptors,
        "FT232R": ftdi(peers[:1]).descriptors,
        "FT4232H": ftdi(peers, "FT4232H").descriptors,
        "CP2105": cp210x(peers[:2], "CP2105").descriptors,
        "CH340": ch34x(peers[0]).descriptors,
    }
    descriptors = known[name]
    raw = (descriptors.device + b"".join(descriptors.configurations)).hex().upper()
    attributes = {"busnum": 1, "devnum": 2, "bConfigurationValue": 1, "speed": 480}
    mock = tmp_path / "device.umockdev"
    mock.write_text(
        "P: /devices/pci0000:00/0000:00:14.0/usb1/1-1\n"
        f"N: bus/usb/001/002={raw}\n"
        "E: DEVTYPE=usb_device\nE: DEVNAME=/dev/bus/usb/001/002\nE: BUSNUM=001\nE: DEVNUM=002\nE: SUBSYSTEM=usb\n"
        f"H: descriptors={raw}\n" + "".join(f"A: {key}={value}\\n\n" for key, value in attributes.items())
    )
    result = subprocess.run(
        ["umockdev-run", "-d", mock, "--", "lsusb", "-v"], capture_output=True, text=True, timeout=30, check=False
    )
    rebuilt, _ = parse_lsusb(result.stdout)
    assert rebuilt.device == descriptors.device
    assert rebuilt.configurations == descriptors.configurations


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lsusb: no such device",
        GADGET[: GADGET.index("  Configuration")],
        GADGET.replace("bMaxPacketSize0        64", "bMaxPacketSize0      6464"),
    ],
)
def test_texts_without_a_device(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="lsusb -v"):
        parse_lsusb(text)


ODD_LINES = ["      wThing 99999", "  iProduct 99999999999", "  dwX -1", "Report Descriptor:"]


@given(st.lists(st.sampled_from([*GADGET.splitlines(), *ODD_LINES])))
def test_any_lines(lines: list[str]) -> None:
    try:
        parse_lsusb("\n".join(lines))
    except LocalProtocolError:
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1-2.lsusb").write_text(GADGET)
    (tmp_path / "2-1.4.lsusb").write_text(ECHO)
    (tmp_path / "99-99.lsusb").write_text(GADGET)
    (tmp_path / "notes.txt").write_text("nothing")
    return tmp_path


def test_devices_of_a_folder(folder: Path) -> None:
    server = Server()
    try:
        added = add_directory(server, folder)
        assert [(i.busid, i.busnum, i.devnum) for i in added] == [("1-2", 1, 2), ("2-1.4", 2, 4), ("99-99", 99, 99)]
        remote = Remote("127.0.0.1", server.listen("127.0.0.1", 0)[1])
        assert [info.busid for info in remote.devices()] == ["1-2", "2-1.4", "99-99"]

        device = remote.import_device(Selector("1-2"))
        host = SerialHost(device, settings=LineSettings(9600))
        host.write(b"comes back")
        assert host.read(10) == b"comes back"
        device.close()

        device = remote.import_device(Selector("2-1.4"))
        device.run(Urb.control(set_configuration(2).pack()))
        device.run(Urb(TransferType.BULK, 0x01, 4, b"echo"))
        assert bytes(device.run(Urb(TransferType.BULK, 0x81, 512)).data) == b"echo"
        device.close()

        for _ in range(2):  # and it stays there
            with pytest.raises(ImportRefused):
                remote.import_device(Selector("99-99"))
    finally:
        server.close()


def test_folders_that_cannot_be_served(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(LocalProtocolError, match=r"has no files BUSID.lsusb"):
            add_directory(Server(), directory)
    (tmp_path / "unnumbered.lsusb").write_text(GADGET)
    with pytest.raises(LocalProtocolError, match="is not a busid"):
        read_lsusb(tmp_path / "unnumbered.lsusb")
    with pytest.raises(LocalProtocolError, match="cannot be read"):
        read_lsusb(tmp_path / "1-9.lsusb")
    (tmp_path / "1-1.lsusb").write_text("junk")
    with pytest.raises(LocalProtocolError, match=r"1-1\.lsusb: no device"):
        add_directory(Server(), tmp_path)


def test_the_demo_serves_them(folder: Path) -> None:
    command = [sys.executable, "-m", "usbip_capture.cli.main", "demo", "--listen", "127.0.0.1:0", "--syslog-listen",
               "127.0.0.1:0", "--lsusb", str(folder)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(7)]
            port = int(lines[0].split(",")[0].rpartition(":")[2])
            assert [line.split()[1] for line in lines if line.endswith("there as well.\n")] == ["1-2", "2-1.4", "99-99"]
            assert [line for line in lines[1:4] if not line.startswith("  ")] == []  # hints in one piece
            listed = {info.busid for info in Remote("127.0.0.1", port).devices()}
            assert listed == {demo.BUSID, "1-2", "2-1.4", "99-99"}
        finally:
            process.terminate()


def test_a_bad_file_ends_the_demo_with_one_sentence(folder: Path) -> None:
    (folder / "7-1.lsusb").write_text(GADGET.replace("    bNumInterfaces          2\n", ""))
    command = [
        sys.executable,
        "-m",
        "usbip_capture.cli.main",
        "demo",
        "--listen",
        "127.0.0.1:0",
        "--lsusb",
        str(folder),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "7-1.lsusb: line 22: " in result.stderr


def test_the_demo_reports_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "usbip_capture.cli.main", "demo", "--lsusb", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "BUSID.lsusb" in result.stderr
