"""Another machine with usbmon, as ssh finds it: a real sshd and shell, /sys and /dev that a test has made, and in the
place of usbmon a recording of it, which the real tcpdump reads, with the filter that it was started with."""

from __future__ import annotations

import os
import shlex
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.programs.sshd import Sshd
from usbip_capture.recorded.descriptors import descriptors_of
from usbip_capture.recorded.reading import read_devices
from usbip_capture.recordings.reading import open_capture

GOLDEN = Path(__file__).parents[1] / "golden"
#: Of the device in each recording.
DEVNUM = 2
_FILE_HEADER, _PACKET_HEADER, _DEVNUM_AT = 24, 16, 11
_TOOLS = ("sh", "sed", "cat", "tr", "od", "uname", "sleep", "readlink", "setpriv", "printf", "rm", "touch")
#: Without what lets root read every file.
_PLAIN_USER = "setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-dac_override,-dac_read_search"
# Shows the recording of the bus, filtered, and then waits as for a quiet device.
_TCPDUMP = """\
printf '%s\\n' "$@" >> {folder}/arguments
while [ $# -gt 1 ]; do
  if [ "$1" = -i ]; then bus=${{2#usbmon}}; fi
  shift
done
if [ -e {folder}/broken ]; then echo "tcpdump: usbmon$bus: it is broken" >&2; exit 1; fi
{tcpdump} -r {folder}/usbmon$bus.pcap -n -U -s 262144 -w - "$1" 2>/dev/null
if [ -e {folder}/dies ]; then rm {folder}/dies; echo "tcpdump: the interface went down" >&2; exit 1; fi
sleep 3600 >/dev/null 2>&1 &
waiting=$!
trap 'kill $waiting; echo "7 packets dropped by kernel" >&2; echo over >> {folder}/over; exit 0' TERM
touch {folder}/running
wait
"""


@dataclass
class UsbmonMachine:
    """Who logs in at `sshd` gets to it. folder: has its /sys and /dev."""

    sshd: Sshd
    folder: Path

    def __post_init__(self) -> None:
        tcpdump = shutil.which("tcpdump", path=f"{os.environ['PATH']}:/usr/sbin")
        if tcpdump is None:
            pytest.skip("tcpdump is not installed: nothing reads usbmon's recording as it would read usbmon")
        self.programs.mkdir(parents=True)
        for name in _TOOLS:
            found = shutil.which(name)
            if found:
                (self.programs / name).symlink_to(found)
        self.add_program("tcpdump", _TCPDUMP.format(folder=shlex.quote(str(self.folder)), tcpdump=tcpdump))
        for name in ("sys/bus/usb/devices", "sys/class/net", "dev"):
            (self.folder / name).mkdir(parents=True)
        replaced = {name: f"{self.folder}/{name}" for name in ("sys/bus/usb", "sys/class/net", "dev/usbmon")}
        replacements = [f"s#/{name}#{path}#g" for name, path in replaced.items()]
        replacements.append(f's#^PATH=.*#PATH="{self.programs}"#')
        words = [word for each in replacements for word in ("-e", each)]
        drop = f"{_PLAIN_USER} " if not os.geteuid() else ""
        login = self.folder / "login"
        login.write_text(
            f"echo 'Welcome to pi'\nexec 3<&0\nscript=$(mktemp -u {self.folder}/script.XXXXXX)\nmkfifo $script\n"
            f"{shlex.join(['sed', '-u', *words])} <&3 >$script 2>/dev/null &\n"
            f"exec {drop}$SSH_ORIGINAL_COMMAND <$script 3<&-\n"
        )
        self.sshd.allow(f'command="exec sh {login}" {self.sshd.key}')

    @property
    def programs(self) -> Path:
        """What is in its PATH."""
        return self.folder / "bin"

    def add_program(self, name: str, script: str) -> None:
        """A shell script that can be run there."""
        program = self.programs / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def load_usbmon(self, *buses: int) -> None:
        """Its device files are there."""
        for bus in (0, *buses):
            (self.folder / f"dev/usbmon{bus}").touch()

    def plug(self, busid: str, recording: str, *, devnum: int = DEVNUM, product: str = "", **files: str) -> None:
        """A device of bus 1, whose URBs are those of this golden recording; files: its attributes."""
        folder = self.folder / "sys/bus/usb/devices" / busid
        folder.mkdir()
        descriptors = descriptors_in(recording)
        given = {
            "busnum": "1", "speed": "480", "idVendor": descriptors[8:10][::-1].hex(), "product": product,
            "idProduct": descriptors[10:12][::-1].hex(), "bcdDevice": descriptors[12:14][::-1].hex(),
            "bDeviceClass": "00", "bDeviceSubClass": "00", "bDeviceProtocol": "00", "bConfigurationValue": "1",
            "bNumConfigurations": "1", "bNumInterfaces": " 1", **files,
        }  # fmt: skip
        for name, text in given.items():
            if text:
                (folder / name).write_text(text + "\n")
        (folder / "descriptors").write_bytes(descriptors)
        (self.folder / "usbmon1.pcap").write_bytes(renumbered(recording, devnum))
        (folder / "devnum").write_text(f"{devnum}\n")  # the last one: then it is there

    def unplug(self, busid: str) -> None:
        """Its folder is not there any more."""
        folder = self.folder / "sys/bus/usb/devices" / busid
        (folder / "devnum").unlink()
        shutil.rmtree(folder)

    def network_adapter(self, busid: str) -> None:
        """This device is the one that the connections of ssh come through."""
        device = self.folder / "sys/devices" / f"usb1/{busid}/{busid}:1.0"
        device.mkdir(parents=True)
        (self.folder / "sys/class/net/usb0").mkdir()
        (self.folder / "sys/class/net/usb0/device").symlink_to(device)
        self.add_program("ip", 'if [ "$5" = usb0 ]; then echo "5: usb0 inet 127.0.0.1/24 scope global"; fi')

    def running(self) -> bool:
        """Whether a tcpdump of this machine runs."""
        tools = [str(self.programs / name).encode() for name in ("tcpdump", "dumpcap")]
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                command = (process / "cmdline").read_bytes() if process.name.isdigit() else b""
                if any(tool in command for tool in tools):
                    return True
        return False

    @property
    def arguments(self) -> list[str]:
        """Those of each tcpdump, one after the other."""
        path = self.folder / "arguments"
        return path.read_text().splitlines() if path.exists() else []

    def has(self, name: str) -> bool:
        """Whether there is a file of this name: `running`, once tcpdump has shown all; `over`, when it was ended."""
        return (self.folder / name).exists()


def renumbered(recording: str, devnum: int) -> bytes:
    """What tcpdump has recorded, with another device number."""
    raw = bytearray((GOLDEN / recording / "server-usbmon.pcap").read_bytes())
    at = _FILE_HEADER
    while at < len(raw):
        if raw[at + _PACKET_HEADER + _DEVNUM_AT] == DEVNUM:
            raw[at + _PACKET_HEADER + _DEVNUM_AT] = devnum
        at += _PACKET_HEADER + int.from_bytes(raw[at + 8 : at + 12], "little")
    return bytes(raw)


def descriptors_in(recording: str) -> bytes:
    """Device and configuration descriptor of the device, as a recording of usbmon has them."""
    with open_capture(GOLDEN / recording / "server-usbmon.pcap") as capture:
        (device,) = [device for device in read_devices(capture.packets) if device.number == DEVNUM]
    known = descriptors_of(device)
    return known.device + b"".join(known.configurations)
