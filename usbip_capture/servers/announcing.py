"""A server of ours announces itself on the local network, by mDNS and DNS-SD, with what it exports.

Ref: RFC 6763, 4.1.1 (names of instances), 6 (TXT records). The keys are those of usbip-esp32p4 (version, devices) and
of Adafruit's bridge (transport, state, count, busid, vid, pid); tls, web, device1, device2 and so on are ours
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from usbip_capture.servers.mdns import SERVICE_TYPE, TLS_PROPERTY, WEB_PROPERTY, WEB_TLS_PROPERTY
from usbip_capture.system.shown import one_line
from usbip_capture.usb.info import DeviceInfo

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf

log = logging.getLogger(__name__)

#: Of USB/IP, as usbip-esp32p4 writes it.
_VERSION = "1.1.1"
#: Bytes of an instance's name, less what a conflict adds (`-2`), and of a host's; of a string of a TXT record.
_MAX_INSTANCE, _MAX_LABEL, _MAX_STRING = 63 - 5, 63, 255
#: Bytes of all strings: with the rest of an answer they fit into one packet. Ref: RFC 6763, 6.2
_MAX_TXT = 1100
#: Milliseconds for the answer of another server that has our name, and how many may have it.
_NAME_TIMEOUT, _MAX_SAME = 1500, 100
#: Seconds between two looks at this machine's addresses, and for the end.
_LOOK_AGAIN, _CLOSE_TIMEOUT = 30.0, 1.0


class AnnouncedDevice(NamedTuple):
    """A device that is exported. name: what it calls itself, empty if that is not known."""

    info: DeviceInfo
    name: str = ""


class FurtherPorts(NamedTuple):
    """Ports beside that of TCP, 0 without: of USB/IP within TLS; of the dashboard, which is_secure if by https."""

    tls: int = 0
    web: int = 0
    is_secure: bool = False


class Announcement:
    """Announces a server until closed, on a thread of its own: nobody waits for the network, and its faults are logged.

    name: any text; one that is taken gets a number. port: its TCP port. listening: the numeric addresses where it
    listens, "" and those like 0.0.0.0 for all of this machine; loopback is announced where it listens nowhere else.
    further: its other ports.
    """

    def __init__(
        self,
        name: str,
        port: int,
        devices: Sequence[AnnouncedDevice] = (),
        listening: Sequence[str] = ("",),
        further: FurtherPorts = FurtherPorts(),  # noqa: B008  it cannot be changed
    ) -> None:
        #: The instance's name, once it is announced.
        self.name = ""
        #: Set once it is announced, or was found to be impossible for now.
        self.settled = threading.Event()
        self._wanted_name = instance_name(name)
        self._port = port
        self._listening = tuple(listening)
        self._further = further
        self._txt = txt_record(devices, further)
        self._due = threading.Event()
        self._closing = False
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="usbip-announcement", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._failed(error)

    def update(self, devices: Sequence[AnnouncedDevice]) -> None:
        """What is exported has changed. Returns at once."""
        txt = txt_record(devices, self._further)
        if txt != self._txt:
            self._txt = txt
            self._due.set()

    def close(self) -> None:
        """Withdraw it; after a second nobody waits for that any more."""
        self._closing = True
        self._due.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_TIMEOUT)

    def _run(self) -> None:
        while not self._closing:
            addresses: list[str] = []
            try:
                addresses = reachable(self._listening)
                self._announce_until_changed(addresses)
            except Exception as error:  # noqa: BLE001  zeroconf raises much, and nothing of it is the server's fault
                self._failed(error)
                self._due.wait(_LOOK_AGAIN)
                self._due.clear()

    def _announce_until_changed(self, addresses: list[str]) -> None:
        """Until this machine has other addresses, or it is closed."""
        if not addresses:
            raise OSError("this machine has no address in a network")
        zeroconf = _responder(addresses)
        try:
            self._due.clear()
            txt = self._txt
            info = self._service(_free_name(zeroconf, self._wanted_name), addresses, txt)
            if self._closing:
                return
            zeroconf.register_service(info, allow_name_change=True)
            self.name = info.name.removesuffix(f".{SERVICE_TYPE}")
            self._trouble = ""
            log.info("announced on the local network as %s", one_line(self.name))
            self.settled.set()
            while not self._closing:
                if self._txt != txt:
                    txt = self._txt
                    zeroconf.update_service(self._service(self.name, addresses, txt))
                elif not self._due.wait(_LOOK_AGAIN) and reachable(self._listening) != addresses:
                    return
                self._due.clear()
        finally:
            zeroconf.close()

    def _service(self, name: str, addresses: list[str], txt: dict[str, str]) -> ServiceInfo:
        from zeroconf import ServiceInfo

        return ServiceInfo(
            SERVICE_TYPE,
            f"{name}.{SERVICE_TYPE}",
            self._port,
            parsed_addresses=addresses,
            properties=txt,
            server=f"{_host_label(self._port)}.local.",
        )

    def _failed(self, error: Exception) -> None:
        """Log it, each reason once."""
        reason = one_line(str(getattr(error, "strerror", None) or error or type(error).__name__))
        if reason != self._trouble and not self._closing:
            self._trouble = reason
            log.warning("this server is not announced on the network: %s; clients must name its address", reason)
        self.settled.set()


def _free_name(zeroconf: Zeroconf, wanted: str) -> str:
    """`wanted`, with a number if a server that runs already has it.

    Asked before zeroconf probes: an answer that was sent within the last second is not sent again in time for that.
    Ref: RFC 6762, 6
    """
    name = wanted
    for number in range(2, _MAX_SAME):
        if zeroconf.get_service_info(SERVICE_TYPE, f"{name}.{SERVICE_TYPE}", _NAME_TIMEOUT) is None:
            break
        name = f"{wanted}-{number}"
    return name


def instance_name(text: str) -> str:
    """`text` as the name of an instance: printable, without dots, which zeroconf takes for the end of a label."""
    shown = "".join(c if c.isprintable() and c != "." else "-" for c in text).strip()
    return _cut(shown, _MAX_INSTANCE).strip() or "usbip-capture"


def txt_record(
    devices: Sequence[AnnouncedDevice],
    further: FurtherPorts = FurtherPorts(),  # noqa: B008  it cannot be changed
) -> dict[str, str]:
    """The TXT record of what is exported: the number of devices, and as many of them as there is room for."""
    count = len(devices)
    only = devices[0].info if count == 1 else None
    record = {
        "version": _VERSION,
        "transport": "usbip",
        "state": "exporting" if count else "idle",
        "count": str(count),
        "devices": str(count),
        "busid": only.busid if only else "multi" if count else "-",
        "vid": f"{only.idVendor:04x}" if only else "-",
        "pid": f"{only.idProduct:04x}" if only else "-",
        **({TLS_PROPERTY: str(further.tls)} if further.tls else {}),
        **({WEB_TLS_PROPERTY if further.is_secure else WEB_PROPERTY: str(further.web)} if further.web else {}),
    }
    room = _MAX_TXT - sum(len(f"{key}={value}".encode()) + 1 for key, value in record.items())
    for number, (info, name) in enumerate(devices, 1):
        key = f"device{number}"
        text = f"{one_line(info.busid)} {info.idVendor:04x}:{info.idProduct:04x} {one_line(name)}".strip()
        value = _cut(text, _MAX_STRING - len(key) - 1)
        room -= len(f"{key}={value}".encode()) + 1
        if room < 0:
            break
        record[key] = value
    return record


def reachable(listening: Sequence[str]) -> list[str]:
    """This machine's addresses at which a server that listens there can be reached; loopback if at no other. Sorted."""
    import ifaddr

    wanted = [ipaddress.ip_address(address.partition("%")[0] or "0.0.0.0") for address in listening]
    found: set[str] = set()
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            own = ipaddress.ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0])
            if any(own == address or (_is_all(address, own) and _is_announced(own)) for address in wanted):
                found.add(str(own))
    beyond = {address for address in found if not ipaddress.ip_address(address).is_loopback}
    return sorted(beyond or found)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _is_all(address: _Address, own: _Address) -> bool:
    """Whether who listens on `address` does on all of this machine, of the version of `own`."""
    return address.is_unspecified and (address.version == own.version or address.version == 6)


def _is_announced(own: _Address) -> bool:
    """Whether others can use it: link-local addresses of IPv6 mean nothing without the reader's own interface."""
    return not own.is_loopback and not (own.version == 6 and own.is_link_local)


def _responder(addresses: list[str]) -> Zeroconf:
    """On the interfaces that have these addresses."""
    from zeroconf import IPVersion, Zeroconf

    versions = {ipaddress.ip_address(address).version for address in addresses}
    version = IPVersion.All if len(versions) == 2 else IPVersion.V6Only if versions == {6} else IPVersion.V4Only
    try:
        return Zeroconf(interfaces=list(addresses), ip_version=version)
    except OSError:
        if version is not IPVersion.All:
            raise
        return Zeroconf(interfaces=[a for a in addresses if ":" not in a], ip_version=IPVersion.V4Only)


def _host_label(port: int) -> str:
    """A host's name of our own: this machine's may be announced by its mDNS responder, with other addresses."""
    own = "".join(c if c.isascii() and c.isalnum() else "-" for c in socket.gethostname().partition(".")[0])
    return f"usbip-{port}-{own}"[:_MAX_LABEL].strip("-")


def _cut(text: str, size: int) -> str:
    """As much as `size` bytes of UTF-8 hold."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")
