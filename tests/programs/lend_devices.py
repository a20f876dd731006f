"""Lends the USB devices of the machine that it runs on, hubs left out: `python -m lend_devices PORT [PCAP]`.

For a guest with Python. Exports follow what is plugged in and out. With PCAP every session is captured there.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading

from usbip_capture import PcapWriter, Tapped
from usbip_capture.device import Device
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.devices.libusb.local_device import LocalDevice
from usbip_capture.server import Server

HUB = 9
log = logging.getLogger("lend_devices")


def main(port: int, pcap: str = "") -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    server, bus, changed = Server(), LocalBus.shared(), threading.Event()
    writer = PcapWriter(pcap) if pcap else None
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: (ended.set(), changed.set()))
    bus.watch(changed.set)
    server.listen("0.0.0.0", port)
    exported: dict[str, LocalDevice] = {}
    changed.set()
    while not ended.is_set():
        changed.clear()
        follow(server, bus, exported, writer)
        log.info("lending %s.", " ".join(sorted(exported)) or "nothing")
        changed.wait()
    server.close()
    if writer is not None:
        writer.close()
    bus.close()
    log.info("ended, with %d threads", threading.active_count())


def follow(server: Server, bus: LocalBus, exported: dict[str, LocalDevice], writer: PcapWriter | None) -> None:
    """Export what is there now."""
    there = {device.info.busid: device for device in bus.devices() if device.info.bDeviceClass != HUB}
    for busid, device in list(exported.items()):
        if busid not in there or there[busid].info.devnum != device.info.devnum:
            server.remove(busid)
            del exported[busid]
    for busid, device in there.items():
        if busid not in exported:
            exported[busid] = device

            def opened(device: LocalDevice = device) -> Device:
                lent: Device = device.open(reset=True)
                if writer is not None:
                    lent = Tapped(lent, writer.add_usb_interface(lent.info, server="local"))
                return lent

            server.add(device.info, opened)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
