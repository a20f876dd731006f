"""usbmon of a bus in the guest, recorded into files of this machine.

Ref: Linux Documentation/admin-guide/usb/usbmon.rst
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.rig.machine import Machine

#: libpcap's own; the kernel shows a fifth of the buffer that libpcap asks for as data of one event.
_SNAPLEN = 262_144
_TEXT = "/sys/kernel/debug/usb/usbmon"


@contextmanager
def recorded(guest: Machine, bus: int, path: Path, text: Path | None = None) -> Iterator[None]:
    """Record bus `bus` into the pcap `path` while the context lasts, and into `text` in the kernel's text form."""
    files = f"/tmp/usbmon{bus}.pcap", f"/tmp/usbmon{bus}.txt"
    tcpdump = f"tcpdump -U -Z root -s {_SNAPLEN} -i usbmon{bus} -w {files[0]}"
    guest.run(f"modprobe usbmon; rm -f {files[0]} {files[1]}")
    guest.run(
        f"{tcpdump} >/dev/null 2>&1 </dev/null & echo $! >{files[0]}.pid;"
        f" cat {_TEXT}/{bus}u >{files[1]} 2>/dev/null </dev/null & echo $! >{files[1]}.pid;"
        f" until [ -s {files[0]} ]; do usleep 20000; done"
    )
    try:
        yield
    finally:
        # What is in the kernel's buffers is written before the signal is seen.
        guest.run(
            f"usleep 300000; for p in $(cat {files[0]}.pid {files[1]}.pid);"
            " do kill $p; while [ -e /proc/$p ]; do usleep 20000; done; done"
        )
        path.write_bytes(guest.run(f"cat {files[0]}").stdout)
        if text is not None:
            text.write_bytes(guest.run(f"cat {files[1]}").stdout)
