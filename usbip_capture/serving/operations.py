"""What is plugged in and who has it, and what can be done about it while the server runs: for the dashboard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from usbip_capture.devices import holders, uses
from usbip_capture.errors import DeviceNotFound, UsbipError
from usbip_capture.lending.lender import Exported, Lender
from usbip_capture.lending.plugged import Bus, HavingHubs, Plugged
from usbip_capture.server.client import Client
from usbip_capture.server.events import POWER, RESET
from usbip_capture.server.exporter import Server
from usbip_capture.server.figures import Figures
from usbip_capture.serving.ports import Ports
from usbip_capture.syslog.severity import NOTICE

#: What state a device is in. HELD: this system does not let it be lent. NO_POWER: of a port, which may have one.
FREE, IN_USE, NOT_EXPORTED, HELD, HUB, NO_POWER = "free", "in use", "not exported", "held", "hub", "no power"
#: bDeviceClass, bInterfaceClass
_HUB_CLASS, _DISK_CLASS = 9, 8
#: Seconds for which what the system's files show of a device is remembered: browsers look twice a second.
_FRESH = 2.0
_EJECTED, _WITHDRAWN = "is ejected", "is not exported any more, by hand"


class NotPossible(UsbipError):
    """It cannot be done with a device in its state."""


@dataclass(slots=True, frozen=True)
class Standing:
    """A device that is plugged in. exported: None if it is not. client: who has it. why: it is not exported."""

    plugged: Plugged
    state: str
    exported: Exported | None = None
    client: Client | None = None
    why: str = ""


class Operations:
    """Of one server. Threads may share it. by: who wants it, for the events, such as `web:NAME`."""

    def __init__(self, server: Server, lender: Lender, ports: Ports, bus: Bus) -> None:
        self._server = server
        self._lender = lender
        self._ports = ports
        self._bus = bus
        self._known: dict[str, tuple[object, float, tuple[str, str]]] = {}  # by busid: of what, when, what

    def count(self) -> Figures:
        """Have what devices do counted, for clients that connect from now on; where it is."""
        if self._server.figures is None:
            self._server.figures = Figures()
        return self._server.figures

    # -- what there is

    @property
    def devices(self) -> list[Standing]:
        """All that is plugged in, hubs too."""
        exported = {found.info.busid: found for found in self._lender.exported}
        clients = {client.busid: client for client in self._server.clients if client.busid}
        return [self._standing(plugged, exported, clients) for plugged in self._lender.present]

    def device(self, busid: str) -> Standing:
        """One of these. Raises DeviceNotFound."""
        found = next((standing for standing in self.devices if standing.plugged.info.busid == busid), None)
        if found is None:
            raise DeviceNotFound(f"nothing is plugged in at {busid!r}")
        return found

    @property
    def hub_ports(self) -> Mapping[str, int]:
        """How many ports each hub has, by its name: `usb1` for a controller's own; empty where that is not known."""
        return self._bus.hub_ports() if isinstance(self._bus, HavingHubs) else {}

    @property
    def ports_off(self) -> list[str]:
        """Busids of ports whose power was switched off by this server."""
        return self._ports.off

    @property
    def clients(self) -> list[Client]:
        """Who is connected, the longest first."""
        return self._server.clients

    @property
    def refused(self) -> int:
        """How many requests of clients were refused."""
        return self._server.admission.refused.total()

    def client(self, number: int) -> Client:
        """The one of this number. Raises DeviceNotFound."""
        found = next((client for client in self._server.clients if client.number == number), None)
        if found is None:
            raise DeviceNotFound(f"client {number} is not connected any more")
        return found

    def round_trip(self, client: Client) -> float | None:
        """Seconds of a packet to a client and back; None where the system does not measure that."""
        return self._server.round_trip(client.number)

    # -- what is done

    def export(self, busid: str) -> Standing:
        """Export it, as if a rule named it; what it is then. Raises DeviceNotFound, NotPossible: that cannot be."""
        found = self.device(busid)
        if found.exported is not None:
            return found
        if found.state in (HUB, HELD):
            raise NotPossible(f"{busid} cannot be exported: {found.why}")
        if not self._lender.lend(busid):
            raise NotPossible(f"{busid} cannot be exported: as many devices are as may be, or it was just unplugged")
        return self.device(busid)

    def withdraw(self, busid: str, by: str) -> Standing:
        """Export it no more until `export`; who has it loses it. What it was before. Raises DeviceNotFound."""
        return self._withhold(busid, _WITHDRAWN, by, until_unplugged=False)

    def eject(self, busid: str, by: str) -> Standing:
        """The same, until it is plugged in again."""
        return self._withhold(busid, _EJECTED, by, until_unplugged=True)

    def disconnect(self, busid: str, by: str) -> Client:
        """End the client that has this device, which stays exported. Raises DeviceNotFound, NotPossible."""
        client = self.device(busid).client
        if client is None or not self._server.disconnect_client(client.number, by=by):
            raise NotPossible(f"nobody has {busid}")
        return client

    def disconnect_client(self, number: int, by: str) -> Client:
        """End a client. Raises DeviceNotFound."""
        client = self.client(number)
        self._server.disconnect_client(number, by=by)
        return client

    def reset(self, busid: str, by: str) -> None:
        """Reset an exported device, whether a client has it or not. Raises UsbipError."""
        self._ports.reset(busid)
        self._server.events.emit(RESET, NOTICE, busid=busid, by=by)

    def switch_power(self, busid: str, action: str, by: str) -> None:
        """Switch the power of a port: off, on, or cycle. Raises UsbipError."""
        self._ports.switch_power(busid, action)
        self._server.events.emit(POWER, NOTICE, busid=busid, text=action, by=by)

    def _withhold(self, busid: str, why: str, by: str, *, until_unplugged: bool) -> Standing:
        found = self.device(busid)
        if found.exported is None:
            raise NotPossible(f"{busid} is not exported")
        self._lender.withhold(busid, why, by, until_unplugged=until_unplugged)
        return found

    def _standing(self, plugged: Plugged, exported: Mapping[str, Exported], clients: Mapping[str, Client]) -> Standing:
        info = plugged.info
        found = exported.get(info.busid)
        if found is not None:
            client = clients.get(info.busid)
            return Standing(plugged, FREE if client is None else IN_USE, found, client)
        state, why = self._remembered(plugged)
        return Standing(plugged, state, why=why)

    def _remembered(self, plugged: Plugged) -> tuple[str, str]:
        """State of one that is not exported, and why. The system's files are read again after _FRESH seconds."""
        info, now = plugged.info, time.monotonic()
        key = info, self._lender.is_withheld(info.busid)
        known = self._known.get(info.busid)
        if known is None or known[0] != key or now - known[1] > _FRESH:
            known = self._known[info.busid] = key, now, self._state(plugged)
        return known[2]

    def _state(self, plugged: Plugged) -> tuple[str, str]:
        obstacle = holders.obstacle(plugged.info, plugged.sysfs)
        if plugged.info.bDeviceClass == _HUB_CLASS:
            return HUB, str(obstacle or "")
        return (NOT_EXPORTED, self._why_not(plugged)) if obstacle is None else (HELD, str(obstacle))

    def _why_not(self, plugged: Plugged) -> str:
        if self._lender.is_withheld(plugged.info.busid):
            return "it was withdrawn or ejected by hand, whatever the rules are: export it to lend it again"
        if any(interface.bInterfaceClass == _DISK_CLASS for interface in plugged.info.interfaces):
            disk = next((use for use in uses.uses(plugged.sysfs) if use.kind == uses.DISK and use.vital), None)
            if disk is not None:
                return f"it is {disk}: a client that attaches it takes it from this machine"
        return "no rule exports it"


def losses(plugged: Plugged) -> list[str]:
    """What this machine loses with a device when a client attaches it."""
    found = uses.uses(plugged.sysfs)
    return [str(use) for use in found if use.vital or use.kind in (uses.KEYBOARD, uses.MOUSE)]
