"""What another machine has, as its shell prints it: which device is meant, and what is missing there."""

from __future__ import annotations

import pytest

from usbip_capture.errors import DeviceNotFound, LocalProtocolError, RemoteProtocolError, UsbipError
from usbip_capture.remote_usbmon.machine import RemoteMachine
from usbip_capture.remote_usbmon.survey import Survey, parse_survey
from usbip_capture.servers.address import ServerAddress, parse_selection
from usbip_capture.usb.info import Speed

_MACHINE = "system Linux\ntool tcpdump\nusb\nusbmon 0 user\nusbmon 1 user\n"


def device(busid: str, devnum: int, **attributes: str) -> str:
    given = {
        "busnum": "1", "devnum": str(devnum), "speed": "480", "idVendor": "0403", "idProduct": "6001",
        "bDeviceClass": "00", "bConfigurationValue": "1", "bNumInterfaces": " 1", **attributes,
    }  # fmt: skip
    return f"device {busid}\n" + "".join(f"{name} {text}\n" for name, text in given.items())


_DEVICES = (
    device("usb1", 1, bDeviceClass="09")
    + device("1-1", 2, product="Adapter", serial="A1", descriptors="1201")
    + device("1-2", 3, bDeviceClass="09", product="Hub")
    + device("1-2.1", 4, product="Adapter", serial="A2")
    + device("1-3", 5, product="\x1b[2JDisk", idVendor="46f4", idProduct="0001", speed="5000")
)


def survey(text: str = _MACHINE + _DEVICES) -> Survey:
    return parse_survey("ssh://pi", f"{text}end\n")


def selected(text: str, found: Survey) -> list[str]:
    return [device.info.busid for device in found.selected(parse_selection(text))]


def test_devices_as_sysfs_has_them() -> None:
    adapter, disk = survey().devices[1], survey().devices[4]
    assert (adapter.info.busnum, adapter.info.devnum, adapter.info.vid_pid) == (1, 2, (0x0403, 0x6001))
    assert (adapter.info.speed, disk.info.speed) == (Speed.HIGH, Speed.SUPER)
    assert (adapter.info.bConfigurationValue, adapter.info.bNumInterfaces) == (1, 1)
    assert adapter.descriptors == b"\x12\x01"
    assert str(disk) == r"1-3 (46f4:0001) \x1b[2JDisk"


@pytest.mark.parametrize(
    ("text", "busids"),
    [
        ("all", ["1-1", "1-2.1", "1-3"]),
        ("1-1", ["1-1"]),
        ("1-2", ["1-2"]),  # a hub that is named
        ("46f4:0001", ["1-3"]),
        ("serial=A2", ["1-2.1"]),
        ("0403:6001:A1", ["1-1"]),
        ("1-3,serial=A1", ["1-3", "1-1"]),
    ],
)
def test_which_is_meant(text: str, busids: list[str]) -> None:
    assert selected(text, survey()) == busids


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("auto", "ssh://pi has several devices: name one by its busid: 1-1 (0403:6001) Adapter, 1-2.1 (0403:6001) Ad"),
        ("0403:6001", "ssh://pi has several devices 0403:6001: name one by its busid: 1-1 (0403:6001) Adapter, 1-2.1"),
        ("9-9", "ssh://pi has no device 9-9: it has 1-1 (0403:6001) Adapter, 1-2.1 (0403:6001) Adapter, 1-3 (46f4:0"),
        ("serial=\x1b", r"ssh://pi has no device serial=\x1b: it has 1-1"),
    ],
)
def test_none_or_several(text: str, sentence: str) -> None:
    with pytest.raises(DeviceNotFound) as caught:
        selected(text, survey())
    assert str(caught.value).startswith(sentence)
    assert str(caught.value).isprintable()


def test_one_device_is_the_only_one() -> None:
    assert selected("auto", survey(_MACHINE + device("1-1", 2))) == ["1-1"]
    for text in ("auto", "all"):
        with pytest.raises(DeviceNotFound, match=r"no (USB )?device"):
            selected(text, survey(_MACHINE))


def test_the_adapter_that_ssh_comes_through() -> None:
    """Its traffic would be captured again, without end. Those behind the same hub are not meant."""
    found = survey(f"{_MACHINE}carrier /sys/devices/pci0000:00/usb1/1-2/1-2.1/1-2.1:1.0\n{_DEVICES}")
    assert selected("all", found) == ["1-1", "1-3"]
    with pytest.raises(LocalProtocolError, match=r"1-2\.1 .* is the network adapter that ssh comes through"):
        selected("1-2.1", found)


@pytest.mark.parametrize(
    ("machine", "sentence"),
    [
        ("system Linux\nusb\ntool tcpdump\n", "usbmon is not loaded on ssh://pi: run `ssh pi sudo modprobe usbmon`"),
        (_MACHINE.replace("usbmon 1 user\n", ""), "ssh://pi has no /dev/usbmon1 for the bus of 1-1 (0403:6001)"),
        (_MACHINE.replace("usbmon 1 user", "usbmon 1 none"), "/dev/usbmon1 of ssh://pi cannot be read by the user"),
        (_MACHINE.replace("tool tcpdump\n", ""), "ssh://pi has neither tcpdump nor dumpcap: install tcpdump there"),
        ("system FreeBSD\n", "ssh://pi does not have usbmon, which is Linux's: it runs FreeBSD"),
        ("system Linux\n", "ssh://pi does not have usbmon, which is Linux's: its kernel has no USB"),
    ],
)
def test_what_is_missing(machine: str, sentence: str) -> None:
    found = survey(machine + device("1-1", 2))
    with pytest.raises(UsbipError) as caught:
        found.tool_for(found.selected(parse_selection("auto"))[0], "pi")
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("machine", "tool"),
    [
        (_MACHINE, ("tcpdump", False)),
        (_MACHINE + "tool dumpcap\n", ("tcpdump", False)),
        (_MACHINE.replace("tcpdump", "dumpcap"), ("dumpcap", False)),
        (_MACHINE.replace("usbmon 1 user", "usbmon 1 root"), ("tcpdump", True)),
    ],
)
def test_what_captures(machine: str, tool: tuple[str, bool]) -> None:
    found = survey(machine + device("1-1", 2))
    assert found.tool_for(found.devices[0], "pi") == tool


def test_devices_that_are_just_being_unplugged() -> None:
    """An attribute is not there any more, or nonsense; names that sysfs does not have are not taken either."""
    strange = (
        device("1-1", 2, idVendor="xyz") + device("1-2", 0) + device("$(touch x)", 3) + device("../1-3", 3)
        + "device 1-4\n" + device("1-5", 3, descriptors="1") + device("1-6", 4)
    )  # fmt: skip
    assert [one.info.busid for one in survey(_MACHINE + "nonsense\nusbmon x y\n\n" + strange).devices] == ["1-6"]


def test_half_an_answer() -> None:
    with pytest.raises(RemoteProtocolError, match="but a part of what was asked"):
        parse_survey("ssh://pi", _MACHINE)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("pi", "give ssh://pi$"),
        ("tls://pi", "give ssh://HOST, not tls://pi"),
        ("demo", "give ssh://HOST, not demo"),
        ("local", "give ssh://HOST, not local"),
    ],
)
def test_by_ssh_only(address: str, sentence: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"mode usbmon reaches the other machine by ssh: {sentence}"):
        RemoteMachine(ServerAddress.parse(address))
