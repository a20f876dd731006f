"""Captures as other programs leave them: cut, filtered, with drops, begun in mid-session, of two devices.

Those of others are public: of usbmon and of USBPcap, with the source of usbmon-tools. USB_CAPTURES names a folder of
further ones, pcapng or pcap, gzip'ed or not: whatever was recorded elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.builders.answers_again import assert_answers_again, assert_equals_itself
from tests.oracles.suites_of_others import own_suite
from usbip_capture.replayed.recording import Recording, read_recordings

pytestmark = [
    pytest.mark.wireshark,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

GOLDEN = Path(__file__).parents[1] / "golden"
SESSIONS = ["keyboard", "serial", "stall", "storage", "audio-in"]
DROPS, WITHOUT_CONTROL = "editcap, with drops", "tshark, without control transfers"
TWO_DEVICES = "mergecap, two devices of one number"
#: IN and OUT are the files.
BY_PROGRAMS = {
    "editcap, another format": "editcap -F nsecpcap IN OUT",
    "editcap, a snapshot length": "editcap -s 96 IN OUT",
    "editcap, begun in mid-session": "editcap -r IN OUT 113-100000",
    DROPS: "editcap IN OUT 118 119 127 133 140 141 152",
    "tshark, one device": "tshark -r IN -Y usb.device_address==2 -w OUT",
    WITHOUT_CONTROL: "tshark -r IN -Y usb.transfer_type!=2 -w OUT",
    "tcpdump, the beginning": "tcpdump -r IN -c 140 -w OUT",
    TWO_DEVICES: "mergecap -a -w OUT IN golden/detach-busy/client-usbmon.pcap",
}
FURTHER = sorted(path for path in Path(os.environ.get("USB_CAPTURES") or os.devnull).glob("**/*") if path.is_file())


def run(command: str, source: Path, made: Path) -> list[Recording]:
    """What a program makes of a capture."""
    words = [{"IN": str(source), "OUT": str(made)}.get(word, word) for word in command.split()]
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    subprocess.run(words, check=True, capture_output=True, timeout=120, cwd=GOLDEN.parent)
    return read_recordings(made)


def check(recordings: list[Recording]) -> None:
    for recording in recordings:
        assert_equals_itself(recording)
        assert_answers_again(recording)


#: A command of a disk without its completion is not answered.
CASES = [(name, program) for name in SESSIONS for program in BY_PROGRAMS if (name, program) != ("storage", DROPS)]


@pytest.mark.parametrize(("name", "program"), CASES)
def test_what_a_program_left_answers_again(name: str, program: str, tmp_path: Path) -> None:
    found = run(BY_PROGRAMS[program], GOLDEN / name / "client-usbmon.pcap", tmp_path / "made")
    check(found)
    devices = 1 + (program == WITHOUT_CONTROL and name != "stall")  # nothing tells then that the hub is one
    devices += program == TWO_DEVICES and name != "keyboard"  # the other one is that keyboard
    assert len(found) == devices


@pytest.fixture(scope="module")
def of_others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_suite("usbmon-tools", "testdata", "usbmon", tmp_path_factory.mktemp("source"))


@pytest.mark.parametrize("name", ["test1.pcap", "usbpcap1.pcap", *map(str, FURTHER)])
def test_a_capture_of_others_answers_again(name: str, of_others: Path) -> None:
    found = read_recordings(of_others / name)
    assert found
    check([one for one in found if not any("descriptors do not have endpoints" in flaw for flaw in one.flaws)])
