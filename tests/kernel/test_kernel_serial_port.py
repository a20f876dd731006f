"""usbip:// ports of pyserial on devices of a real Linux kernel's USB/IP server."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import Plug
from tests.kernel.rig import Guest
from tests.oracles.pcapng_reader import read_capture
from tests.waiting import wait_until

serial = pytest.importorskip("serial", reason="pyserial, of the extra `serial`, is not installed")
from usbip_capture.urlhandler import registration  # noqa: E402  after the skip

registration.register(serial)
pytestmark = pytest.mark.kernel

MIB = 1 << 20
#: Bytes on their way at most: the far ends stop when they hold too much.
WINDOW = 96 << 10
MARKER = b"\n\x01ready\n"
LONG = pytest.mark.long
#: Bytes written at once, and there and back in all.
SIZES = pytest.mark.parametrize(
    ("chunk", "size"),
    [
        (61, MIB // 64),
        *((chunk, MIB // 4) for chunk in (512, 4096, 65536)),
        pytest.param(61, MIB // 16, marks=LONG),
        *(pytest.param(chunk, MIB, marks=LONG) for chunk in (512, 4096, 65536)),
    ],
)


@pytest.fixture(scope="module")
def gadget(start_guest: Callable[[], Guest]) -> Iterator[Guest]:
    """A guest that offers an ACM gadget, and echoes what comes to it.

    It ends with these tests: without a client its line is hung up, and it tries again for ever.
    """
    with Guest() as guest:
        guest.gadget(["acm.0"])
        echo = "stty -F /dev/ttyGS0 raw -echo; cat /dev/ttyGS0 >/dev/ttyGS0; usleep 50000"
        guest.run(f"(while :; do {echo}; done) >/dev/null 2>&1 &")
        yield guest


def echo(port: Any, chunk: int, total: int) -> None:
    """So many bytes there and back, written in chunks while they are read."""
    data = random.Random(chunk).randbytes(total)
    got = bytearray()

    def read(size: int) -> None:
        while len(got) < size:
            some = port.read(min(port.in_waiting or 1, len(data) - len(got)))
            assert some, f"nothing came after {len(got)} bytes"
            got.extend(some)

    for at in range(0, len(data), chunk):
        read(at + chunk - WINDOW)
        port.write(data[at : at + chunk])
    read(len(data))
    assert got == data
    assert port.in_waiting == 0


@SIZES
def test_ftdi_adapter(guest: Guest, plug: Plug, tmp_path: Path, chunk: int, size: int) -> None:
    busid, capture = plug("serial"), tmp_path / "ftdi.pcapng"
    url = f"usbip://127.0.0.1:{guest.usbip_port}/{busid}?pcap={capture}"
    with serial.serial_for_url(url, 921600, timeout=20) as port:
        echo(port, chunk, size)
    assert len(list(read_capture(capture))) > 20


@SIZES
def test_acm_gadget(gadget: Guest, chunk: int, size: int) -> None:
    url = f"usbip://127.0.0.1:{gadget.gadget_port}/usbip-vudc.0"

    def taken() -> Any:
        try:
            return serial.serial_for_url(url, timeout=1)
        except serial.SerialException:  # the gadget that the test before had is not free at once
            return None

    with wait_until("the gadget can be opened", taken) as port:
        # Its terminal has hung up and is set up anew: until then it shows control characters as ^A.
        def is_raw() -> bool:
            port.reset_input_buffer()
            port.write(MARKER)
            return bool(port.read_until(MARKER) == MARKER) and not port.in_waiting

        wait_until("the gadget echoes", is_raw)
        port.timeout = 20
        echo(port, chunk, size)


def test_a_port_is_opened_again_and_again(guest: Guest, plug: Plug) -> None:
    url = f"usbip://127.0.0.1:{guest.usbip_port}/{plug('serial')}"
    for number in range(3):
        with serial.serial_for_url(url, timeout=20) as port:
            text = f"opened for the {number}. time\n".encode()
            port.write(text)
            assert port.readline() == text


def test_unplugged_while_reading(guest: Guest, plug: Plug, tmp_path: Path) -> None:
    busid, capture = plug("serial"), tmp_path / "unplugged.pcapng"
    url = f"usbip://127.0.0.1:{guest.usbip_port}/{busid}?pcap={capture}"
    port = serial.serial_for_url(url, timeout=60)
    unplug = threading.Timer(0.2, guest.unplug, [busid])
    unplug.start()
    with pytest.raises(serial.SerialException, match="0403:6001"):
        port.read(1)
    unplug.join()
    port.close()
    assert list(read_capture(capture))
