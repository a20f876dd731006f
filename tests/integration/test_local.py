"""The devices of this machine: `usbip-capture local`, and the host name `local` wherever a host is taken."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial
import usb.core

from tests.builders.sysfs_tree import KEYBOARD_KEYS
from tests.fakes.evil_server import EVIL
from tests.fakes.local_machine import IN_PLACE_OF_USB1, LocalMachine, local_machine
from tests.oracles.pcapng_reader import read_capture
from tests.programs.commands import ROOT, run_line
from tests.programs.extcap_runs import Reader, assert_complete
from tests.waiting import wait_until
from usbip_capture import get_backend
from usbip_capture.cli.main import main
from usbip_capture.demo.device import BULK_IN, BULK_OUT
from usbip_capture.errors import DeviceNotFound, ImportRefused, ServerUnreachable
from usbip_capture.extcap.listing import list_devices
from usbip_capture.servers.address import Selector, ServerAddress

LOCAL = ServerAddress.parse("local")
GET_CONFIGURATION, SET_CONFIGURATION = bytes.fromhex("8008000000000100"), bytes.fromhex("0009010000000000")
NO_LIBUSB = (1, "devices of this machine need the package libusb1: pip install libusb1 libusb-package; ")
SEVERAL = "this machine has several devices"
#: Devices of the machine, a command -> its exit code, and what it says.
SENTENCES = {
    ("missing", "local"): NO_LIBUSB,
    ("missing", "list local"): NO_LIBUSB,
    ("missing", "capture local -o x.pcapng"): NO_LIBUSB,
    ("missing", "probe local"): NO_LIBUSB,
    ("unloadable", "local"): (1, "libusb is not installed: pip install libusb-package"),
    ("", "local"): (1, "this machine has no USB device: plug one in"),
    ("", "list local"): (1, "this machine has no USB device: plug one in"),
    ("", "capture local -o x.pcapng"): (4, "this machine has no USB device: plug one in"),
    ("", "capture local all -o x.pcapng"): (4, "this machine has no USB device: plug one in"),
    ("demo second", "probe local"): (4, f"{SEVERAL}: name one by its busid: 99-1.4 (1209:0001), 99-2 (1209:0001)"),
    ("demo second", "probe local 1209:1"): (4, f"{SEVERAL} 1209:0001: name one by its busid"),
    ("demo", "probe local 99-7"): (4, "this machine has no device 99-7: it has 99-1.4 (1209:0001)"),
    ("demo", "probe local 99-1"): (4, "device 99-1 (1d6b:0002) is a hub, which nobody can have"),
    ("demo", "probe local serial=NOBODY"): (4, "this machine has no device serial=NOBODY: it has 99-1.4"),
    ("demo denied", "probe local"): (5, "device 99-1.4 (1209:0001) may not be opened by this user: write the line"),
    ("demo vanishing", "probe local"): (4, "device 99-1.4 (1209:0001) has been unplugged"),
    ("demo held", "probe local"): (5, "is in use: interface 0: another program has claimed it"),
    ("demo busy", "read local --ep 0x83"): (6, "EPERM"),
    ("demo", "relay local --listen 127.0.0.1:0"): (2, "local is this machine itself: `usbip-capture serve`"),
    ("demo", "local --bogus"): (2, "--bogus is not an option"),
}
#: What it prints.
OUTPUTS = {
    "list local": "99-1.4  1209:0001   480M",
    "local": "99-1.4  1209:0001   480M",
    "local -t": "|__ Port 4: Dev 002, ID 1209:0001",
    "local -v": "bInterfaceClass         3 Human Interface Device",
    "probe local": "serial number  DEMO0001",
    "probe local serial=DEMO0001": "serial number  DEMO0001",
    "probe LOCAL 1209:1": "device         99-1.4 of local",
    "control local 80 06 0100 0 18": "12 01 10 02 ef 02 01 40",
    "read local --ep 0x83": "00 00 18 00 00 00 00 00",
    "write local --ep 4 --text hi": "2 bytes written",
    "ports local": "usbip://local/99-1.4",
    "selftest local": "14 checks, 0 wrong",
    "use local -- python3 program.py": "99 2 usbip_capture",
}


def run(line: str, folder: Path, devices: str) -> tuple[int, str, str]:
    """A command of a user whose machine has these devices."""
    paths = os.pathsep.join(map(str, (ROOT, IN_PLACE_OF_USB1)))
    done = run_line(f"usbip-capture {line}", folder, PYTHONPATH=paths, SIMULATED_USB=devices)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[LocalMachine]:
    with local_machine(tmp_path / "machine") as made:
        yield made


@pytest.mark.parametrize(("devices", "line"), SENTENCES, ids=lambda text: text or "none")
def test_a_sentence_and_an_exit_code(devices: str, line: str, tmp_path: Path) -> None:
    code, sentence = SENTENCES[devices, line]
    status, _, stderr = run(line, tmp_path, devices)
    assert sentence in stderr
    assert status == code


@pytest.mark.parametrize("line", OUTPUTS)
def test_commands_on_this_machine(line: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import usb.core\ndev = usb.core.find(idVendor=0x1209)\nprint(dev.bus, dev.address, dev.manufacturer)\n"
    )
    status, stdout, stderr = run(line, tmp_path, "demo")
    assert status == 0, stderr
    assert OUTPUTS[line] in stdout


def test_what_is_below_a_device_is_in_one_column(tmp_path: Path) -> None:
    status, stdout, stderr = run("local", tmp_path, "demo second")
    assert status == 0, stderr
    at = stdout.index("1209:0001") - stdout.rindex("\n", 0, stdout.index("1209:0001")) - 1
    below = [line for line in stdout.splitlines() if line.endswith(("is opened", "plugged into it"))]
    assert [len(line) - len(line.lstrip()) for line in below] == [at] * 3


def test_captures_are_those_of_a_server(tmp_path: Path) -> None:
    """What a probe asks, and how it is answered; but that the device is configured already."""

    def captured(server: str) -> list[tuple[object, ...]]:
        path = tmp_path / f"{server}.pcapng"
        status, _, stderr = run(f"probe {server} --pcap {path}", tmp_path, "demo")
        assert status == 0, stderr
        records = [packet.usb for packet in read_capture(path) if packet.usb is not None]
        return [
            (r.type, r.xfer_type, r.epnum, r.status, r.length, r.len_cap, r.setup, r.xfer_flags, r.data)
            for r in records
        ]

    local, demo = captured("local"), captured("demo")
    ours, theirs = ([r for r in some if r not in others] for some, others in ((local, demo), (demo, local)))
    assert len(local) >= 28
    assert {record[6] for record in ours} <= {GET_CONFIGURATION, bytes(8)}
    assert {record[6] for record in theirs} <= {SET_CONFIGURATION, bytes(8)}


def test_busy_interfaces_are_reported_with_the_capture_going_on(tmp_path: Path) -> None:
    status, _, stderr = run("capture local -o x.pcapng --count 60", tmp_path, "demo busy")
    assert status == 0
    assert "usbip-capture: interface 2 of 99-1.4 (1209:0001) is not available: another program has claimed it" in stderr
    assert len(list(read_capture(tmp_path / "x.pcapng"))) == 60


def test_nothing_of_this_machine_is_remembered(tmp_path: Path) -> None:
    run("probe local", tmp_path, "demo")
    run("capture local -o x.pcapng --count 5", tmp_path, "demo")
    remembered = tmp_path / "cache/usbip-capture/servers"
    assert not remembered.exists() or "local" not in remembered.read_text()


# -- usbip-capture local


def test_the_table_says_who_holds_what_and_whether_it_can_be_lent(
    machine: LocalMachine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.plug_demo(1)
    machine.plug_demo(2, devnum=8, drivers=("cdc_acm", "cdc_acm", "usbfs", "usbfs"))
    machine.files.process(4711, "openocd", "/dev/bus/usb/001/008")
    keyboard = Path(machine.files.folder, "sys/bus/usb/devices/1-1").resolve() / "1-1:1.2"
    machine.files.input(keyboard, "Demo \x1bkeyboard", key=KEYBOARD_KEYS)
    denied = str(machine.files.node(1, 8))
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != denied and real(path, mode))
    assert main(["local"]) == 0
    classes = "[Communications, CDC Data, Human Interface Device, Vendor Specific Class]"
    assert capsys.readouterr().out.splitlines() == [
        "local:",
        f"  1-1  1209:0001   480M  Demo device, DEMO0001  {classes}",
        "       interfaces 0, 1: cdc_acm; 2: usbhid; 3: free",
        r"       in use: this machine's keyboard (Demo \x1bkeyboard)",
        "       can be lent",
        f"  1-2  1209:0001   480M  Demo device, DEMO0001  {classes}",
        "       interfaces 0, 1: cdc_acm; 2, 3: openocd (process 4711)",
        f"       cannot be lent: no permission to open {denied} (see below)",
        "",
        "For the right to open them write into /etc/udev/rules.d/70-usbip-capture.rules:",
        '  SUBSYSTEM=="usb", ATTR{idVendor}=="1209", ATTR{idProduct}=="0001", TAG+="uaccess"',
        "then run as root: udevadm control --reload && udevadm trigger",
    ]


@pytest.mark.parametrize("line", ["local -t", "list local -t"])
def test_the_tree_has_empty_ports(machine: LocalMachine, capsys: pytest.CaptureFixture[str], line: str) -> None:
    sysfs = machine.plug_demo(3)
    folder = Path(machine.files.folder, "sys/bus/usb/devices")
    for name, count in {"usb1": "4", "usb2": "2", "1-1": "0", "usb3": "x", "1-0:1.0": "9"}.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "maxchild").write_text(f"{count}\n")
    assert main(line.split()) == 0
    shown = capsys.readouterr().out.splitlines()
    assert sysfs.ports == (3,)
    assert [one for one in shown if "If " not in one] == [
        "local:",
        "/:  Bus 001",
        "    |__ Port 3: Dev 007, ID 1209:0001 Demo device, 480M",
        "    |__ Ports 1-2, 4: empty",
        "/:  Bus 002",
        "    |__ Ports 1-2: empty",
    ]


def test_a_list_for_scripts(machine: LocalMachine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.plug_demo(1, 4)
    assert main(["list", "demo", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)[0]
    assert main(["local", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)
    assert made.keys() == listed.keys()
    assert (made["host"], made["port"]) == ("local", None)
    for command in ("list", "probe"):
        assert main([command, "local", "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert (printed if command == "probe" else printed[0])["port"] is None
    (device,) = made["devices"]
    known = listed["devices"][0]
    differs = {"busid", "bus", "device"}
    assert {key: device[key] for key in known.keys() - differs} == {key: known[key] for key in known.keys() - differs}
    assert device["busid"] == "1-1.4"
    assert device["ports"] == [1, 4]
    assert device["holders"]["2"] == {"name": "usbhid", "pid": 0}
    assert device["lendable"] is True
    assert device["obstacle"] is None
    assert device["uses"] == []


def test_all_descriptors_without_a_transfer(machine: LocalMachine, capsys: pytest.CaptureFixture[str]) -> None:
    attached = machine.plug_demo(1)
    folder = Path(machine.files.folder, "sys/bus/usb/devices/1-1").resolve() / "1-1:1.2"
    (folder / "bAlternateSetting").write_text(" 0\n")
    (folder / "interface").write_text("Demo keyboard\n")
    (folder / "0003:1209:0001.0001").mkdir()
    (folder / "0003:1209:0001.0001/report_descriptor").write_bytes(bytes.fromhex("0501 0906 a101 c0"))
    assert main(["local", "-v", "--json"]) == 0
    descriptors = json.loads(capsys.readouterr().out)[0]["devices"][0]["descriptors"]
    assert main(["local", "-v"]) == 0
    shown = capsys.readouterr().out
    assert "iProduct                2 Demo device" in shown
    assert "iInterface              5 Demo keyboard" in shown
    assert "Usage, data= [ 0x06 ] 6" in shown
    assert descriptors["hid_reports"] == {"2": "05010906a101c0"}
    assert machine.usb1.calls == []
    assert not attached.claimed


@pytest.mark.parametrize("options", [[], ["-t"], ["-v"], ["--json"]], ids=" ".join)
def test_what_devices_say_is_cleaned(
    options: list[str], machine: LocalMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.plug_demo(1, manufacturer=EVIL, product=EVIL, serial=EVIL)
    folder = Path(machine.files.folder, "sys/bus/usb/devices/1-1").resolve() / "1-1:1.2"
    (folder / "bAlternateSetting").write_text("0\n")
    (folder / "interface").write_text(EVIL)
    machine.files.input(folder, EVIL, key=KEYBOARD_KEYS)
    assert main(["local", *options]) == 0
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert all(c.isprintable() or c == "\n" for c in text), ascii(text)
        assert not [line for line in text.splitlines() if line.startswith("usbip-capture: owned")]


# -- the host name


def test_pyusb_on_a_device_of_this_machine(machine: LocalMachine, tmp_path: Path) -> None:
    attached = machine.plug_demo(1)
    path = tmp_path / "local.pcapng"
    with get_backend("local", pcap=path) as backend:
        dev = usb.core.find(backend=backend, idVendor=0x1209)
        assert dev is not None
        assert dev.serial_number == "DEMO0001"
        assert set(attached.claimed) == {0, 1, 2, 3}
        dev.write(BULK_OUT, b"to itself")
        assert bytes(dev.read(BULK_IN, 512)) == b"to itself"
    assert not attached.claimed
    assert attached.drivers == {0: "cdc_acm", 1: "cdc_acm", 2: "usbhid"}
    assert any(packet.usb is not None and packet.usb.data == b"to itself" for packet in read_capture(path))


def test_a_reset_is_libusbs(machine: LocalMachine) -> None:
    machine.plug_demo(1)
    with get_backend("local") as backend:
        dev = usb.core.find(backend=backend)
        assert dev is not None
        dev.reset()
        assert dev.serial_number == "DEMO0001"
    assert [call for call in machine.usb1.calls if call[0] == "reset"]


def test_a_device_that_is_unplugged_while_it_is_used(machine: LocalMachine) -> None:
    attached = machine.plug_demo(1)
    with get_backend("local") as backend:
        dev = usb.core.find(backend=backend)
        assert dev is not None
        assert dev.serial_number == "DEMO0001"
        machine.usb1.unplug(attached)
        with pytest.raises(usb.core.USBError, match="No such device"):
            dev.ctrl_transfer(0x80, 6, 0x0100, 0, 18)
        wait_until("it is gone", lambda: not list(usb.core.find(find_all=True, backend=backend)))


def test_a_device_by_its_serial_number_is_not_opened_for_it(machine: LocalMachine) -> None:
    machine.plug_demo(1)
    assert LOCAL.find(Selector(serial="DEMO0001")).busid == "1-1"
    with get_backend("local", device="serial=DEMO0001") as backend:
        assert usb.core.find(backend=backend) is not None
    assert not [call for call in machine.usb1.calls if call[0] == "claim"]


def test_a_mounted_disk_is_not_taken(machine: LocalMachine) -> None:
    attached = machine.plug_demo(1, drivers=("usb-storage",))
    machine.files.disk(Path(machine.files.folder, "sys/bus/usb/devices/1-1").resolve() / "1-1:1.0")
    machine.files.proc("self/mountinfo", "23 1 8:1 / /home rw shared:1 - ext4 /dev/sda1 rw")
    with pytest.raises(ImportRefused, match="in use by this machine: it is the disk sda1, mounted at /home; unmount"):
        LOCAL.import_device(Selector("1-1"))
    assert attached.drivers == {0: "usb-storage"}


def test_who_takes_the_keyboard_is_warned(machine: LocalMachine, caplog: pytest.LogCaptureFixture) -> None:
    machine.plug_demo(1)
    machine.files.input(
        Path(machine.files.folder, "sys/bus/usb/devices/1-1").resolve() / "1-1:1.2", "", key=KEYBOARD_KEYS
    )
    with caplog.at_level(logging.WARNING):
        LOCAL.import_device(Selector("1-1")).close()
    assert "1-1 (1209:0001) is this machine's keyboard: it types nothing here until it is released" in caplog.text


def test_who_holds_an_interface_is_named(machine: LocalMachine, caplog: pytest.LogCaptureFixture) -> None:
    machine.plug_demo(1, drivers=("cdc_acm", "cdc_acm", "usbfs", ""))
    machine.files.process(4711, "openocd", "/dev/bus/usb/001/007")
    with caplog.at_level(logging.WARNING):
        LOCAL.import_device(Selector("1-1")).close()
    assert "interface 2 of device 1-1 (1209:0001) is held by openocd (process 4711)" in caplog.text


def test_a_device_of_which_nothing_is_free(machine: LocalMachine) -> None:
    machine.plug_demo(1, drivers=("usbfs",) * 4)
    machine.files.process(4711, "openocd", "/dev/bus/usb/001/007")
    with pytest.raises(ImportRefused, match=r"1-1 \(1209:0001\) is in use by openocd \(process 4711\): end that"):
        LOCAL.import_device(Selector("1-1"))


def test_a_device_that_is_open_already(machine: LocalMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usbip_capture.devices.libusb.bus._RELEASE_PATIENCE", 0.0)
    machine.plug_demo(1)
    first = LOCAL.import_device(Selector("1-1"))
    with pytest.raises(ImportRefused, match=r"device 1-1 \(1209:0001\) cannot be opened: it is in use by this program"):
        LOCAL.import_device(Selector("1-1"))
    first.close()
    LOCAL.import_device(Selector("1-1")).close()


def test_no_permission_names_the_rule(machine: LocalMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.plug_demo(1).open_error = "Access"
    monkeypatch.setattr("usbip_capture.devices.libusb.local_device.OPEN_PATIENCE", 0.0)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ImportRefused, match=r'no permission to open .*idVendor}=="1209".*/etc/udev/rules.d/'):
        LOCAL.import_device(Selector("1-1"))


def test_a_device_that_is_gone_when_it_is_opened(machine: LocalMachine) -> None:
    machine.plug_demo(1).gone = True
    with pytest.raises(DeviceNotFound, match=r"device 1-1 \(1209:0001\) has been unplugged"):
        LOCAL.import_device(Selector("1-1"))


def test_there_is_no_wire() -> None:
    with pytest.raises(ServerUnreachable, match="local is this machine itself, without a USB/IP server"):
        LOCAL.open_transport()


def test_the_name_is_reserved(tmp_path: Path) -> None:
    status, _, stderr = run("config add local 192.0.2.1", tmp_path, "")
    assert status == 2, stderr
    assert "local is this machine itself: choose another name" in stderr


def test_it_may_have_a_name_of_its_own_in_the_configuration(tmp_path: Path) -> None:
    assert run("config add bench local", tmp_path, "")[0] == 0
    status, stdout, stderr = run("list bench", tmp_path, "demo")
    assert (status, stderr) == (0, "")
    assert "99-1.4  1209:0001" in stdout


# -- programs of others


def test_a_serial_port_of_this_machine(machine: LocalMachine) -> None:
    machine.plug_demo(1)
    with serial.serial_for_url("usbip://local/1-1", 115200, timeout=5) as port:
        port.write(b"to itself")
        assert b"to itself" in port.read_until(b"to itself")


def test_the_plug_in_captures_a_device_of_this_machine(tmp_path: Path) -> None:
    paths = os.pathsep.join(map(str, (ROOT, IN_PLACE_OF_USB1)))
    reader = Reader(tmp_path / "fifo")
    code = "import sys; from usbip_capture.extcap.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "--capture", "--extcap-interface", "usbip-remote"]
    done = subprocess.run(
        [*command, "--host", "local", "--duration", "1", "--fifo", str(reader.path)],
        env={**os.environ, "PYTHONPATH": paths, "SIMULATED_USB": "demo"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert reader.ended.wait(10)
    assert assert_complete(reader.data, tmp_path) > 20


def test_reload_lists_the_devices_of_this_machine(machine: LocalMachine) -> None:
    machine.plug_demo(1)
    devices, problem = list_devices("local", "", 5.0)
    assert [(d.busid, d.vid_pid, d.name, d.serial) for d in devices] == [
        ("1-1", "1209:0001", "Demo device", "DEMO0001")
    ]
    assert problem == ""


def test_this_machine_is_an_interface_where_it_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", "local")
    code = "from usbip_capture.extcap.main import main; import sys; main(['--extcap-interfaces']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "interface {value=usbip-local}{display=USB of this machine}" in done.stdout
    assert not {"usb1", "usbip_capture.devices"} & set(done.stdout.split())
