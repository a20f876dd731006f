"""Our server stopped, killed or cut in a reply: the client's kernel attaches again, without a reboot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes.cutting_proxy import CuttingProxy
from tests.kernel.lending import TIMEOUT, Lending
from tests.kernel.rig import Guest, Program, PythonGuest

pytestmark = pytest.mark.kernel

REPLY = 48  # bytes of a RET_SUBMIT
COMPLAINTS = "BUG:|Oops|Call Trace|blocked for more|refcount|use-after-free|list_del corruption"

# GET_DESCRIPTOR by usbfs. Ref: Linux include/uapi/linux/usbdevice_fs.h, USBDEVFS_CONTROL
CONTROL = """
import ctypes, fcntl, os, struct, sys
data = ctypes.create_string_buffer(18)
request = struct.pack("<BBHHHI4xQ", 0x80, 6, 0x100, 0, 18, 2000, ctypes.addressof(data))
file = os.open(sys.argv[1], os.O_RDWR)
print("asking")
try:
    fcntl.ioctl(file, 0xC0185500, request)
except OSError as error:
    print(os.strerror(error.errno))
"""
READ = "dd if=/dev/sda of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; true"


@pytest.fixture
def proxy(lending: Lending) -> Iterator[CuttingProxy]:
    with closing(CuttingProxy(lending.port)) as proxy:
        yield proxy


def wait_gone(client: Guest, local: str) -> None:
    client.run(f"i=0; until [ ! -e /sys/bus/usb/devices/{local} ]; do usleep 20000; done", timeout=TIMEOUT)


def wait_disk(client: Guest) -> None:
    client.run("until head -c 512 /dev/sda >/dev/null 2>&1; do usleep 20000; done", timeout=TIMEOUT)


def complaints(client: Guest) -> str:
    return client.run(f"dmesg | grep -E '{COMPLAINTS}'; true").text


def ask(client: PythonGuest, local: str) -> None:
    client.python(CONTROL, client.device_file(local))


def ask_in_the_background(client: PythonGuest, local: str) -> Program:
    """Where no answer comes, the kernel waits for it until the device is detached."""
    asking = client.start("-c", CONTROL, client.device_file(local), log="/tmp/asked")
    asking.wait_printed("asking")
    return asking


def read(client: PythonGuest, local: str) -> None:
    client.run(READ)


SHORT = {
    "control": (ask, (REPLY + 9,)),
    "bulk": (read, (REPLY + REPLY + 2000,)),
}
LONG = {
    "control": (ask, range(REPLY + 18)),
    "bulk": (read, (*range(2 * REPLY + 20), *range(2 * REPLY + 4090, 3 * REPLY + 4096 + 13))),
}


@pytest.mark.parametrize(
    ("use", "offsets"),
    [pytest.param(*SHORT[kind], id=kind) for kind in SHORT]
    + [pytest.param(*LONG[kind], id=f"{kind}, each byte", marks=pytest.mark.long) for kind in LONG],
)
def test_connection_is_cut_in_a_reply(
    lending: Lending,
    borrower: PythonGuest,
    disk: Path,
    proxy: CuttingProxy,
    use: Callable[[PythonGuest, str], None],
    offsets: Sequence[int],
) -> None:
    busid = lending.lend("storage", "ehci", file=disk, driver="usb-storage")
    for offset in offsets:
        local = borrower.attach(proxy.port, busid)
        wait_disk(borrower)
        proxy.arm(offset)
        use(borrower, local)
        assert proxy.cut.wait(TIMEOUT), offset
        wait_gone(borrower, local)
        proxy.disarm()
        lending.wait_available(busid)
    lending.wait_driver(busid, "usb-storage")
    assert complaints(borrower) == ""


def test_half_a_reply_and_nothing_more(
    lending: Lending, borrower: PythonGuest, disk: Path, proxy: CuttingProxy
) -> None:
    busid = lending.lend("storage", "ehci", file=disk, driver="usb-storage")
    local = borrower.attach(proxy.port, busid)
    wait_disk(borrower)
    proxy.arm(REPLY + 9, close=False)
    asking = ask_in_the_background(borrower, local)
    assert proxy.cut.wait(TIMEOUT)
    borrower.detach(local)
    asking.wait_ended()
    proxy.disarm()
    lending.wait_available(busid)
    local = borrower.attach(proxy.port, busid)
    wait_disk(borrower)
    borrower.detach(local)
    lending.wait_available(busid)
    assert complaints(borrower) == ""


def play(client: Guest) -> None:
    """Music without an end, in the background; until it is heard."""
    client.run("until [ -c /dev/snd/controlC0 ] && [ -c /dev/snd/pcmC0D0p ]; do usleep 20000; done", timeout=TIMEOUT)
    client.run("(aplay -q -D hw:0 -f S16_LE -r 48000 -c 2 -t raw /dev/zero) >/dev/null 2>&1 </dev/null & :")
    client.run("until grep -q RUNNING /proc/asound/card0/pcm0p/sub0/status; do usleep 20000; done", timeout=TIMEOUT)


@pytest.mark.parametrize("offsets", [(30,), pytest.param(range(140), marks=pytest.mark.long)], ids=["", "each byte"])
def test_connection_is_cut_in_isochronous_replies(
    lending: Lending, borrower: PythonGuest, proxy: CuttingProxy, offsets: Sequence[int]
) -> None:
    busid = lending.lend("audio", "uhci", driver="snd-usb-audio")
    for offset in offsets:
        local = borrower.attach(proxy.port, busid)
        play(borrower)
        proxy.arm(offset)
        assert proxy.cut.wait(TIMEOUT), offset
        wait_gone(borrower, local)
        proxy.disarm()
        lending.wait_available(busid)
    lending.wait_driver(busid, "snd-usb-audio")
    assert complaints(borrower) == ""


def test_server_is_stopped_then_killed(lending: Lending, borrower: PythonGuest, disk: Path) -> None:
    busid = lending.lend("storage", "ehci", file=disk, driver="usb-storage")
    local = borrower.attach(lending.port, busid)
    wait_disk(borrower)
    lending.program.signal("STOP")
    asking = ask_in_the_background(borrower, local)
    borrower.detach(local)
    asking.wait_ended()
    lending.program.signal("CONT")
    lending.wait_available(busid)
    local = borrower.attach(lending.port, busid)
    wait_disk(borrower)
    kill(lending, borrower, local)
    restoring = lending.guest.start("-m", "usbip_capture", "serve", "--restore", log="/tmp/restore.log")
    restoring.wait_ended()
    assert lending.drivers(busid) == {"1.0": "usb-storage"}, restoring.printed()
    lending.start()
    lending.wait_available(busid)
    local = borrower.attach(lending.port, busid)
    wait_disk(borrower)
    kill(lending, borrower, local)
    lending.start()  # which also binds what was left
    lending.wait_driver(busid, "usb-storage")
    lending.wait_available(busid)
    local = borrower.attach(lending.port, busid)
    wait_disk(borrower)
    borrower.detach(local)
    lending.wait_available(busid)
    assert complaints(borrower) == ""


def kill(lending: Lending, client: Guest, local: str) -> None:
    """No chance to bind any driver again."""
    lending.program.signal("KILL")
    lending.program.wait_ended()
    wait_gone(client, local)
