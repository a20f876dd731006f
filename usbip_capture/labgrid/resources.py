"""labgrid's resources: a device that a USB/IP server exports, and one that is plugged in at this machine."""

from __future__ import annotations

import os
from time import monotonic

import attr
from labgrid import target_factory
from labgrid.driver.exception import ExecutionError
from labgrid.resource.common import ManagedResource, NetworkResource, ResourceManager
from labgrid.util.proxy import proxymanager

from usbip_capture.devices.holders import attached_from_elsewhere
from usbip_capture.devices.libusb.bus import LocalBus
from usbip_capture.devices.libusb.local_device import LocalDevice
from usbip_capture.errors import LocalProtocolError, ServerUnreachable, UsbipError
from usbip_capture.net.address import DEFAULT_PORT
from usbip_capture.servers.address import LOCAL, Selector, ServerAddress
from usbip_capture.servers.local import is_hub
from usbip_capture.servers.patience import connect_timeout
from usbip_capture.system.shown import one_line

#: Seconds for which a lent device may be unplugged before it counts as lost: boards come back from a reset.
PATIENCE = 10.0
_CONNECT_TIMEOUT = 5.0


@target_factory.reg_resource
@attr.s(eq=False)
class NetworkUsbipDevice(NetworkResource):
    """A device that a USB/IP server exports.

    host: HOST, HOST:PORT, [IPv6]:PORT, tls://HOST, ssh://HOST or a name of the configuration. port: of the server;
    None while an exporter lends the device to nobody. busid: which device; VID:PID and serial=NUMBER mean one, too.
    """

    port: int | None = attr.ib(default=DEFAULT_PORT, validator=attr.validators.instance_of((int, type(None))))
    busid: str = attr.ib(default="", validator=attr.validators.instance_of(str))

    @property
    def server(self) -> ServerAddress:
        """Where it is, by ssh where labgrid has a proxy for it. Raises UsbipError."""
        if self.port is None:
            raise UsbipError(
                f"device {one_line(self.busid)} of {one_line(self.host)} is lent to nobody: acquire its place"
            )
        timeout = connect_timeout(_CONNECT_TIMEOUT)
        proxied = getattr(self, "extra", {}).get("proxy_required") or os.environ.get("LG_PROXY")
        if proxied and "://" not in self.host:
            return ServerAddress.parse(*self._forwarded(), timeout)
        return ServerAddress.parse(self.host, self.port, timeout)

    def _forwarded(self) -> tuple[str, int]:
        """A port of this machine that labgrid's ssh forwards there. Raises ServerUnreachable."""
        try:
            host, port = proxymanager.get_host_and_port(self)
        except ExecutionError as error:
            raise ServerUnreachable(
                f"{one_line(self.host)} cannot be reached by labgrid's ssh: {one_line(str(error))}"
            ) from error
        return host, port

    @property
    def selector(self) -> Selector:
        """Which of its devices is meant. Raises LocalProtocolError."""
        return Selector.parse(self.busid)


def plugged_selector(text: object) -> Selector:
    """Which device of this machine is meant. Raises LocalProtocolError."""
    if not isinstance(text, str) or not text.strip():
        raise LocalProtocolError(
            f"device: {text!r} is not a device: write a port such as '1-1.4', 'VID:PID' or 'VID:PID:SERIAL'"
        )
    return Selector.parse(text)


@attr.s(eq=False)
class LocalDevices(ResourceManager):
    """Looks for the devices of this machine, for all resources of this process."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._bus: LocalBus | None = None
        self._found: list[LocalDevice] = []
        self._changed = True

    def poll(self) -> None:
        """Have each resource see what is plugged in. Raises LibusbMissing."""
        if self._bus is None:
            self._bus = LocalBus.shared()
            self._bus.watch(self._note_change)
        if self._changed:
            self._changed = False  # before it is read: a change meanwhile is seen next time
            self._found = [d for d in self._bus.devices() if not is_hub(d) and not attached_from_elsewhere(d.sysfs)]
        for resource in self.resources:
            resource.see(self._found)

    def _note_change(self) -> None:
        """On any thread."""
        self._changed = True


@target_factory.reg_resource
@attr.s(eq=False)
class UsbipDevice(ManagedResource):
    """A device that is plugged in here. device: its port, VID:PID, VID:PID:SERIAL or serial=NUMBER.

    busid: the port where it is or was, empty before. lent: it is the device at its port now, whatever that is, and may
    be unplugged for a moment. Raises LocalProtocolError for what means no device.
    """

    manager_cls = LocalDevices

    device: str = attr.ib(default="")

    def __attrs_post_init__(self) -> None:
        self._wanted = plugged_selector(self.device)
        self.busid = ""
        self.description = ""
        self.lent = False
        self._seen = 0.0
        super().__attrs_post_init__()

    @property
    def server(self) -> ServerAddress:
        """This machine."""
        return ServerAddress(LOCAL)

    @property
    def selector(self) -> Selector:
        """Its port."""
        return Selector(busid=self.busid)

    def see(self, plugged: list[LocalDevice]) -> None:
        """Is it among these?"""
        now = monotonic()
        found = next((device for device in plugged if self._is(device)), None)
        if found is not None:
            self._seen = now
            self.busid = found.info.busid
            self.description = one_line(f"{found.info} {found.product}".strip())
        self.avail = found is not None or (self.lent and now - self._seen < PATIENCE)

    def _is(self, device: LocalDevice) -> bool:
        if self.lent:
            return device.info.busid == self.busid
        return self._wanted.matches(device.info) and self._wanted.serial in ("", device.serial)
