"""The kernel's own USB test suite, `usbtest.ko`, on an attached SourceSink gadget: what tools/usb/testusb.c does.

Ref: Linux drivers/usb/misc/usbtest.c
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.kernel.rig import PythonGuest, RigError

GADGET_ZERO = (0x0525, 0xA4A0)

# Runs in the guest, with the file of the device and the members of usbtest_param_64.
_PROGRAM = """
import ctypes, fcntl, os, struct, sys

USBTEST_REQUEST_64 = 3 << 30 | 40 << 16 | ord("U") << 8 | 100
USBDEVFS_IOCTL = 3 << 30 | 16 << 16 | ord("U") << 8 | 18
file = os.open(sys.argv[1], os.O_RDWR)
parameters = ctypes.create_string_buffer(struct.pack("<5I4xqq", *map(int, sys.argv[2:]), 0, 0), 40)
try:
    fcntl.ioctl(file, USBDEVFS_IOCTL, struct.pack("<iIQ", 0, USBTEST_REQUEST_64, ctypes.addressof(parameters)))
    sys.stdout.write("passed")
except OSError as error:
    sys.stdout.write(os.strerror(error.errno))
"""


@dataclass(frozen=True)
class Case:
    """number: usbtest's. What it does with the lengths is in usbtest_do_ioctl()."""

    number: int
    name: str
    iterations: int = 2
    length: int = 1024
    vary: int = 0
    sglen: int = 0


CASES = [
    Case(0, "nothing"),
    Case(1, "bulk write", 8),
    Case(2, "bulk read", 8),
    Case(3, "bulk write, lengths vary", 8, 2048, 321),
    Case(4, "bulk read, lengths vary", 8, 2048, 512),
    Case(5, "queued bulk writes", sglen=8),
    Case(6, "queued bulk reads", sglen=8),
    Case(7, "queued bulk writes, lengths vary", length=2048, vary=321, sglen=8),
    Case(8, "queued bulk reads, lengths vary", length=2048, vary=512, sglen=8),
    Case(9, "control: chapter 9", 1),
    Case(10, "control: queued, stalls among them", 8, sglen=8),
    Case(13, "set and clear halt", 2),
    Case(14, "control: writes and their reading back", 4, 256, 17),
    Case(15, "isochronous write", sglen=8),
    Case(16, "isochronous read", sglen=8),
    Case(17, "bulk write from odd addresses", 4),
    Case(18, "bulk read to odd addresses", 4),
    Case(19, "bulk write from odd addresses, unmapped", 4),
    Case(20, "bulk read to odd addresses, unmapped", 4),
    Case(21, "control: writes from odd addresses", 4, 256, 17),
    Case(22, "isochronous write from odd addresses", sglen=8),
    Case(23, "isochronous read to odd addresses", sglen=8),
    Case(25, "interrupt write"),
    Case(26, "interrupt read"),
    Case(27, "bulk write, measured", 1, 4096, sglen=8),
    Case(28, "bulk read, measured", 1, 4096, sglen=8),
    Case(29, "clear halt between writes", 2),
    # Last: Linux's client may wait for ever for a URB that Linux's server has taken back.
    Case(11, "unlink reads", 2, 1024),
    Case(12, "unlink writes", 2, 1024),
    Case(24, "unlink a queue of bulk writes", 2, 1024, sglen=8),
]

#: The gadget has no interrupt endpoints, and none for isochronous transfers on dummy_hcd.
WITHOUT_ENDPOINTS = {15, 16, 22, 23, 25, 26}
#: usbtest does them with zeros only.
MEASURED = {27, 28}
PASSED, HANGS = "passed", "hangs"


def run_case(client: PythonGuest, device_file: str, case: Case, times: int = 1, timeout: float = 10.0) -> str:
    """One case on an attached device, its iterations `times` as many: PASSED, the error in words, or HANGS."""
    numbers = (case.number, case.iterations * times, case.length, case.vary, case.sglen)
    try:
        return client.python(_PROGRAM, device_file, *map(str, numbers), timeout=timeout).text
    except RigError as error:
        if "timed out" in str(error):
            return HANGS
        raise


def table(results: dict[str, dict[int, str]]) -> str:
    """What came of each case, server beside server."""
    lines = [("case", *results)]
    lines += [(f"{case.number} {case.name}", *(r.get(case.number, "") for r in results.values())) for case in CASES]
    return "\n".join(" | ".join(field.ljust(42 if not n else 24) for n, field in enumerate(line)) for line in lines)
