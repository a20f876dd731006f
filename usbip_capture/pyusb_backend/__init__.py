"""PyUSB over USB/IP: `usb.core.find(backend=get_backend("192.168.1.20"), ...)`."""

from __future__ import annotations

import os
from typing import BinaryIO

from usbip_capture.capture.span import check_offer
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import LocalProtocolError
from usbip_capture.host.source import ServerSource
from usbip_capture.net.address import DEFAULT_PORT
from usbip_capture.pyusb_backend.backend import UsbipBackend
from usbip_capture.servers.address import ALL, Selector, ServerAddress, parse_selection
from usbip_capture.servers.patience import connect_timeout
from usbip_capture.wire.structs import MAX_TRANSFER

__all__ = ["UsbipBackend", "get_backend"]

_TIMEOUT = 2.0


def get_backend(
    host: str,
    port: int = DEFAULT_PORT,
    timeout: float | None = None,
    pcap: PcapWriter | str | os.PathLike[str] | BinaryIO | None = None,
    *,
    device: str = "",
    reconnect: float = 0.0,
    max_transfer: int = MAX_TRANSFER,
    offer: bool = False,
    hindsight: str = "",
) -> UsbipBackend:
    """A PyUSB backend for the devices of a USB/IP server; `demo` is the built-in one, `local` this machine itself.

    host: a name, or an IPv4 or IPv6 address, perhaps with a port of its own (`pi:3241`, `[fe80::1%eth0]:3240`);
    `tls://pi` within TLS, `ssh://me@pi` by the system's ssh, with `port` on loopback of that machine.
    timeout: seconds for connecting and for listing and importing devices; None: USBIP_CAPTURE_CONNECT_TIMEOUT of the
    environment, else 2.
    pcap: where to capture all URBs. A PcapWriter stays open and is yours to close; a capture into a path or a stream
    is completed by the backend's `close()`, which leaves a stream of yours open.
    device: see only these: a busid, VID:PID or serial=NUMBER, or a comma-separated list; empty is all. For a serial
    number each device is imported once, and released.
    reconnect: seconds to wait for a device that was lost. What was under way fails with "no such device"; the next
    use imports it again, with the configuration and alternate settings that it had, even if its VID:PID has changed
    meanwhile. 0: it stays lost, as with libusb.
    max_transfer: bytes of one URB; longer bulk and interrupt transfers are cut at packet boundaries. Learnt from
    servers that answer EMSGSIZE; set it for one that breaks instead, such as 16384 for usbip-esp32p4.
    offer: list this program in Wireshark as `USB/IP session: NAME PID`, until it ends: whoever runs Wireshark as the
    same user can capture what it does with its devices, from any moment on. hindsight: what is kept for them of each
    device, such as `30s,16MiB`; nothing without.
    Raises ValueError for a host, port, time or limit that cannot be, TypeError for a `pcap` that nothing can be
    written to, CaptureError when the capture cannot be written, CannotListen when this program cannot be listed.
    """
    server = ServerAddress.parse(host, port, connect_timeout(_TIMEOUT) if timeout is None else timeout)
    if not isinstance(max_transfer, int) or not 1 <= max_transfer <= MAX_TRANSFER:
        raise LocalProtocolError(f"max_transfer is {max_transfer!r}: give 1 to {MAX_TRANSFER} bytes")
    if not isinstance(reconnect, (int, float)) or not reconnect >= 0:
        raise LocalProtocolError(f"reconnect is {reconnect!r}: give seconds, or 0 to leave a lost device lost")
    if not isinstance(device, str):
        raise LocalProtocolError(f"device is {device!r}: give a busid or VID:PID, or a comma-separated list")
    selection = parse_selection(device) if device else ALL
    return backend_of(
        server, selection, pcap, reconnect=reconnect, max_transfer=max_transfer, offer=offer, hindsight=hindsight
    )


def backend_of(
    server: ServerAddress,
    selection: list[Selector],
    pcap: PcapWriter | str | os.PathLike[str] | BinaryIO | None,
    *,
    reconnect: float = 0.0,
    max_transfer: int = MAX_TRANSFER,
    offer: bool = False,
    hindsight: str = "",
) -> UsbipBackend:
    """`get_backend` for those who have a Server already."""
    check_offer(offer, hindsight)
    if offer:
        from usbip_capture.offering.program import program_offer  # those who do not offer need none of it

        program_offer(hindsight)
    owned = pcap is not None and not isinstance(pcap, PcapWriter)
    writer = pcap if isinstance(pcap, PcapWriter) or pcap is None else PcapWriter(pcap)
    source = ServerSource(
        server, selection, writer, owns_pcap=owned, max_transfer=max_transfer, reconnect=reconnect, offer=offer
    )
    return UsbipBackend(source)
