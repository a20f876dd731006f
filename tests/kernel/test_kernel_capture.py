"""The Linux kernel as USB/IP server, captured through the real tshark; what tshark decodes is the check."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Plug
from tests.kernel.rig import Guest
from tests.programs.extcap_launcher import wireshark_environment
from usbip_capture.devices.remote import import_device
from usbip_capture.net.connecting import connect
from usbip_capture.net.transport import SocketTransport

pytestmark = [pytest.mark.kernel, pytest.mark.wireshark]

TIMEOUT = 30.0
BULK, INTERRUPT = "0x03", "0x01"


class Capture:
    """A running `tshark -i usbip-remote`. Its packets are decoded twice: live, to wait for one, and from the file."""

    #: What is shown of each packet while it is captured.
    LIVE = ("usb.transfer_type", "usb.urb_type", "usb.endpoint_address", "usbhid.data.array", "frame.comment")

    def __init__(self, folder: Path, guest: Guest, busid: str, *options: str, seconds: float = TIMEOUT) -> None:
        self.path = folder / "capture.pcapng"
        self._environment = wireshark_environment(folder)
        preferences = ("host:127.0.0.1", f"port:{guest.usbip_port}", f"device:{busid}", *options)
        command = ["tshark", "-i", "usbip-remote", "-a", f"duration:{seconds:g}", "-w", str(self.path), "-P", "-l"]
        for preference in preferences:
            command += ["-o", f"extcap.usbip_remote.{preference}"]
        self._stderr = folder / "tshark.stderr"
        with self._stderr.open("wb") as stderr:
            self._tshark = subprocess.Popen(
                [*command, *_fields(self.LIVE)],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        # Whoever reads its output blocks until it ends, so this is the time-out of all waiting.
        self._deadline = threading.Timer(2 * TIMEOUT, self._tshark.kill)
        self._deadline.start()

    def wait_for(self, what: str, accept: Callable[[dict[str, str]], object]) -> None:
        """Until tshark shows a packet that `accept` likes."""
        assert self._tshark.stdout is not None
        for line in self._tshark.stdout:
            if accept(dict(zip(self.LIVE, line.rstrip("\n").split("\t"), strict=False))):
                return
        pytest.fail(f"tshark ended without showing {what}: {self.stderr()}")

    def wait_listening(self) -> None:
        """Until the device is read: the first IN transfer that is not a control transfer was submitted."""
        self.wait_for(
            "an IN transfer",
            lambda p: p["usb.transfer_type"] in (BULK, INTERRUPT) and p["usb.urb_type"] == "'S'",
        )

    def wait_comment(self, text: str) -> None:
        self.wait_for(f"a comment with {text!r}", lambda p: text in p["frame.comment"])

    def wait_ended(self) -> int:
        """Until tshark ends by itself; its exit status."""
        assert self._tshark.stdout is not None
        self._tshark.stdout.read()
        return self._tshark.wait(TIMEOUT)

    def stop(self) -> None:
        """As Ctrl-C does."""
        self._tshark.send_signal(signal.SIGINT)
        assert self.wait_ended() == 0, self.stderr()

    def stderr(self) -> str:
        return self._stderr.read_text()

    def packets(self, *names: str, show: str = "usb") -> list[tuple[str, ...]]:
        """These fields of each packet in the file that the display filter `show` lets through."""
        lines = self._read("-Y", show, *_fields(names)).splitlines()
        return [tuple(line.split("\t")) for line in lines]

    def values(self, name: str, show: str = "usb") -> set[str]:
        """What this field is, in any of the packets."""
        return {value for (value,) in self.packets(name, show=f"{name} && ({show})")}

    def text(self, show: str = "usb") -> str:
        """The packets in words."""
        return self._read("-V", "-Y", show)

    def close(self) -> None:
        self._deadline.cancel()
        if self._tshark.poll() is None:
            self._tshark.kill()
            self._tshark.wait()
        if self._tshark.stdout is not None:
            self._tshark.stdout.close()

    def _read(self, *options: str) -> str:
        command = ["tshark", "-r", str(self.path), *options]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout


def _fields(names: tuple[str, ...]) -> list[str]:
    return ["-T", "fields", *(part for name in names for part in ("-e", name))]


@pytest.fixture
def start(guest: Guest, tmp_path: Path) -> Iterator[Callable[..., Capture]]:
    """Starts the capture of a device of the guest."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    captures: list[Capture] = []

    def start(busid: str, *options: str, seconds: float = TIMEOUT) -> Capture:
        captures.append(Capture(tmp_path, guest, busid, *options, seconds=seconds))
        return captures[-1]

    yield start
    for capture in captures:
        capture.close()


def assert_free(guest: Guest, busid: str) -> None:
    """The server lists the device, and another client can have it."""
    guest.wait_available(busid)
    import_device(SocketTransport(connect("127.0.0.1", guest.usbip_port, TIMEOUT), "the guest"), busid, TIMEOUT).close()
    guest.wait_available(busid)


def test_disk_is_described_and_its_bulk_in_left_alone(
    guest: Guest, plug: Plug, start: Callable[..., Capture], disk: Path
) -> None:
    busid = plug("storage", "ehci", file=disk)
    capture = start(busid, seconds=5)  # nothing comes from a disk that nobody reads: there is no event to wait for
    assert capture.wait_ended() == 0
    assert {"QEMU", "QEMU USB HARDDRIVE"} <= capture.values("usb.bString")
    assert capture.values("usb.idVendor") == {"0x46f4"}
    assert capture.values("usb.bInterfaceClass") == {"0x08"}
    assert capture.packets("usb.bConfigurationValue", show="usb.setup.bRequest == 9") == [("1",)]
    assert capture.values("usb.transfer_type") == {"0x02"}
    assert_free(guest, busid)


def test_serial_adapter_sends_while_it_is_listened_to(
    guest: Guest, plug: Plug, start: Callable[..., Capture], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "line"))
        listener.listen()
        busid = plug("serial", socket=tmp_path / "line")
        line, _ = listener.accept()
    with line:  # QEMU unplugs an adapter whose line is closed
        capture = start(busid)
        capture.wait_listening()
        line.sendall(b"from the far end")
        capture.wait_for("the data", lambda p: p["usb.transfer_type"] == BULK and p["usb.urb_type"] == "'C'")
        capture.stop()
        assert_free(guest, busid)
    assert "QEMU USB SERIAL" in capture.values("usb.bString")
    assert capture.values("usb.idVendor") == {"0x0403"}
    payload = "".join(value.replace(",", "") for (value,) in capture.packets("ftdi-ft.if_a_rx_payload"))
    assert b"from the far end" in bytes.fromhex(payload)


def test_keys_are_decoded(guest: Guest, plug: Plug, start: Callable[..., Capture]) -> None:
    busid = plug("kbd")
    capture = start(busid)
    capture.wait_listening()
    guest.send_keys("a", "ret", "shift")
    capture.wait_for("the second key", lambda p: p["usbhid.data.array"].startswith("28"))
    for _ in range(3):  # ret is let go, shift is pressed and let go
        capture.wait_for("the last report", lambda p: p["usbhid.data.array"])
    capture.stop()
    arrays = [value for (value,) in capture.packets("usbhid.data.array", show="usbhid.data.array")]
    assert [array[:2] for array in arrays] == ["04", "00", "28", "00", "00", "00"]
    assert "Key: LeftShift (0xe1): DOWN" in capture.text("usbhid.data")
    assert "QEMU USB Keyboard" in capture.values("usb.bString")
    assert_free(guest, busid)


def test_device_behind_a_hub(guest: Guest, plug: Plug, start: Callable[..., Capture]) -> None:
    hub = plug("hub")
    plug("mouse", hub)
    busid = plug("kbd", hub)
    assert busid == f"{hub}.2"
    capture = start(busid)
    capture.wait_listening()
    guest.send_keys("a")
    capture.wait_for("the key", lambda p: p["usbhid.data.array"].startswith("04"))
    capture.stop()
    (description,) = capture.values("frame.interface_description")
    assert busid in description
    assert "0627:0001" in description
    assert capture.values("usb.idVendor") == {"0x0627"}
    assert_free(guest, busid)


def test_device_that_is_disconnected_for_a_while(guest: Guest, plug: Plug, start: Callable[..., Capture]) -> None:
    busid = plug("kbd")
    capture = start(busid)
    capture.wait_listening()
    guest.unplug(busid)
    capture.wait_comment("gone")
    assert plug("kbd") == busid
    capture.wait_comment("is back")
    capture.wait_listening()
    guest.send_keys("a")
    capture.wait_for("the key", lambda p: p["usbhid.data.array"].startswith("04"))
    capture.stop()
    (gone,) = capture.packets("frame.number", "usb.urb_status", show='frame.comment contains "gone"')
    (back,) = capture.packets("frame.number", "usb.urb_type", show=f'frame.comment contains "device {busid}"')
    assert gone[1] == "-108"  # what the kernel reports for URBs whose device is unplugged: ESHUTDOWN
    assert back[1] == "'S'"
    assert int(gone[0]) < int(back[0])
    assert len(capture.packets("frame.number", show="usb.setup.bRequest == 9")) == 2
    assert_free(guest, busid)


def test_device_that_is_not_waited_for(guest: Guest, plug: Plug, start: Callable[..., Capture]) -> None:
    busid = plug("kbd")
    capture = start(busid, "reconnect:false")
    capture.wait_listening()
    guest.unplug(busid)
    capture.wait_ended()
    (sentence,) = [line for line in capture.stderr().splitlines() if "extcap" in line]
    assert busid in sentence
    assert "QEMU USB Keyboard" in capture.values("usb.bString")
    plug("kbd")
    assert_free(guest, busid)
