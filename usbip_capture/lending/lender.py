"""Keeps a server's exports in step with what is plugged in, and with the rules of what is to be exported."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from usbip_capture.device import Device
from usbip_capture.devices.holders import attached_from_elsewhere
from usbip_capture.devices.sysfs import ROOTS, Roots
from usbip_capture.devices.uses import DISK, KEYBOARD, Use, uses
from usbip_capture.errors import DeviceNotFound, UsbipError
from usbip_capture.lending.lent import Lent
from usbip_capture.lending.plugged import Bus, Plugged, Resetting
from usbip_capture.lending.restore import UnboundDrivers
from usbip_capture.server.events import EXPORTS_CHANGED, PLUGGED, UNPLUGGED
from usbip_capture.server.exporter import STOPPING, Server
from usbip_capture.server.rules import ExportRule, Rules
from usbip_capture.syslog.severity import NOTICE
from usbip_capture.system.shown import one_line
from usbip_capture.usb.info import DeviceInfo

log = logging.getLogger(__name__)

#: Seconds in which the session of a device that is unplugged ends by itself, when all of its URBs are answered; and
#: between two looks at that.
_PATIENCE, _LOOK_AGAIN = 2.0, 0.1
#: Seconds until a bus that could not be asked is asked again, though nothing has changed.
_RETRY = 1.0
#: Seconds after a change until a second look: the kernel and udev are not ready with a device that has just come.
_SETTLING = 0.5


@dataclass(slots=True, frozen=True)
class Exported:
    """A device that is exported. rule: by which. Texts of the device are as it has them."""

    info: DeviceInfo
    rule: ExportRule
    manufacturer: str = ""
    product: str = ""
    serial: str = ""

    def __str__(self) -> str:
        product = one_line(self.product)
        return f"{self.info}{f' {product}' if product else ''}"


@dataclass(slots=True, frozen=True)
class _Withheld:
    """A port whose device is not exported, whatever the rules are. why: after "its device"; by: who wants it."""

    why: str
    by: str
    until_unplugged: bool


def _same(one: DeviceInfo, other: DeviceInfo) -> bool:
    """Whether it is one device that was not enumerated again. What is configured in it changes while it is lent."""
    return (one.busnum, one.devnum, one.vid_pid, one.bcdDevice) == (
        other.busnum, other.devnum, other.vid_pid, other.bcdDevice,
    )  # fmt: skip


def _disk(facts: list[Use]) -> Use | None:
    """The disk in use that it is, if it is one."""
    return next((use for use in facts if use.kind == DISK and use.vital), None)


class Lender:
    """Exports by `server` what of `bus` matches the rules, also what comes later. Neither is closed with it.

    A port keeps its busid whatever is plugged in there, or comes back there as another device, such as a bootloader.
    max_devices: exported at a time, 0 without limit. reset: each device when a client has released it.
    observed: puts something around a device that a client gets, such as a tap. on_change: called from any thread when
    something else is exported.
    """

    def __init__(
        self,
        server: Server,
        bus: Bus,
        rules: Rules,
        *,
        max_devices: int = 0,
        reset: bool = True,
        observed: Callable[[Device, Exported], Device] = lambda device, exported: device,
        on_change: Callable[[], None] = lambda: None,
        roots: Roots = ROOTS,
    ) -> None:
        self._server = server
        self._bus = bus
        self._rules = self._in_force = rules  # the latter with what is exported by hand
        self._lent: dict[str, ExportRule] = {}  # by hand, by busid
        self._withheld: dict[str, _Withheld] = {}
        self._present: dict[str, Plugged] | None = None
        self._max_devices = max_devices
        self._reset = reset
        self._observed = observed
        self._on_change = on_change
        self._roots = roots
        drivers = UnboundDrivers(roots)
        bus.on_detached = lambda plugged, interfaces: drivers.unbinding(plugged.sysfs)
        bus.on_attached = lambda plugged: drivers.bound(plugged.sysfs, plugged.info.devnum)
        self._looking = threading.Lock()  # one look at a time
        self._exported: dict[str, Exported] = {}
        self._remarked: dict[str, str] = {}  # busid -> the last remark about a device
        self._open: dict[Device, Exported] = {}
        self._leaving: dict[str, float] = {}  # busid -> until when its session may end by itself
        self._changed = threading.Event()
        self._closing = False
        self._trouble: str | None = None  # why the bus could not be asked, the last time
        self._unwatch = bus.watch(self._changed.set)
        self._look()
        self._thread = threading.Thread(target=self._run, name="usbip-lender", daemon=True)
        self._thread.start()

    @property
    def exported(self) -> list[Exported]:
        """What is exported now, by busid."""
        return [self._exported[busid] for busid in sorted(self._exported.copy())]

    @property
    def opened(self) -> list[Device]:
        """The devices that clients have now."""
        return list(self._open.copy())

    @property
    def rules(self) -> Rules:
        """What is to be exported."""
        return self._rules

    @property
    def present(self) -> list[Plugged]:
        """What is plugged in, hubs too, as it was last looked at."""
        return list((self._present or {}).values())

    def lend(self, busid: str) -> bool:
        """Export what is plugged in there, by hand: as a rule that names the port would do it, until `withhold`.

        False if that cannot be; then only `withhold` is undone. Raises LocalProtocolError for what is not a busid.
        """
        rule = ExportRule.parse(busid)
        with self._looking:
            self._withheld.pop(busid, None)
            self._lent[busid] = rule
            self._apply_by_hand()
        self._look()
        with self._looking:
            if busid not in self._exported:
                self._lent.pop(busid, None)
                self._apply_by_hand()
            return busid in self._exported

    def withhold(self, busid: str, why: str = "is not exported any more", by: str = "user", *,
                 until_unplugged: bool = False) -> None:  # fmt: skip
        """Do not export what is plugged in there, whatever the rules are, until `lend`; who has it loses it.

        why: what its client and the events learn, after "its device". until_unplugged: or until another one, or the
        same again, is plugged in there.
        """
        with self._looking:
            self._withheld[busid] = _Withheld(why, by, until_unplugged)
            self._lent.pop(busid, None)
            self._apply_by_hand()
        self._look()

    def is_withheld(self, busid: str) -> bool:
        """Whether it is not exported because that was decided by hand."""
        return busid in self._withheld

    def set_rules(self, rules: Rules) -> None:
        """Export by these from now on; who has a device that is not exported any more loses it."""
        with self._looking:
            self._rules = rules
            self._apply_by_hand()
        text = ", ".join(map(str, rules)) or "none"
        self._server.events.emit(EXPORTS_CHANGED, NOTICE, text=text, by="user")
        self._look()

    def close(self) -> None:
        """Export nothing any more; who has a device loses it. May be called again."""
        self._closing = True
        self._reset = False  # that takes longer than who ends the program waits
        self._unwatch()
        self._changed.set()
        with self._looking:
            for device in self._open.copy():
                if isinstance(device, Resetting):
                    device.resets = False
            for busid in list(self._exported):
                del self._exported[busid]
                self._server.remove(busid, STOPPING, "server")
        if self._thread is not threading.current_thread():
            self._thread.join()

    # -- the lender's thread

    def _run(self) -> None:
        while not self._closing:
            self._changed.wait(_LOOK_AGAIN if self._leaving else _RETRY if self._trouble is not None else None)
            self._changed.clear()
            self._look()
            if not self._closing and not self._leaving and not self._changed.wait(_SETTLING):
                self._look()

    def _look(self) -> None:
        """Bring the exports in step. What fails for one device is no other's."""
        changed = False
        with self._looking:
            if self._closing:
                return
            try:
                present = {local.info.busid: local for local in self._bus.devices()}
            except Exception as error:
                if str(error) != self._trouble:
                    log.error("which devices are plugged in cannot be asked: %s", error or type(error).__name__,
                              exc_info=not isinstance(error, UsbipError))  # fmt: skip
                self._trouble = str(error)
                return
            self._trouble = None
            self._notice(present)
            for busid in [busid for busid in self._exported if busid not in present]:
                if not self._is_leaving(busid):
                    self._withdraw(busid, "is unplugged", "device")
                    changed = True
            for busid in [busid for busid in self._remarked if busid not in present]:
                del self._remarked[busid]
            for local in present.values():
                try:
                    changed |= self._follow(local)
                except Exception:
                    log.exception("whether %s is exported cannot be decided", local.info)
        if changed:
            self._on_change()

    def _notice(self, present: dict[str, Plugged]) -> None:
        """Report what was plugged in or unplugged since the last look."""
        before, self._present = self._present, present
        if before is None:
            return
        for busid, local in before.items():
            if busid not in present or not _same(local.info, present[busid].info):
                withheld = self._withheld.get(busid)
                if withheld is not None and withheld.until_unplugged:
                    del self._withheld[busid]
                self._report(UNPLUGGED, local)
        for busid, local in present.items():
            if busid not in before or not _same(local.info, before[busid].info):
                self._report(PLUGGED, local)

    def _report(self, kind: str, local: Plugged) -> None:
        info = local.info
        product, serial = (local.product, local.serial) if kind == PLUGGED else ("", "")  # the system has forgotten it
        device = f"{info.idVendor:04x}:{info.idProduct:04x}" + (f":{serial}" if serial else "")
        self._server.events.emit(kind, NOTICE, busid=info.busid, device=device, text=product, by="device")

    def _apply_by_hand(self) -> None:
        """The lock is held."""
        self._in_force = Rules((*self._rules, *self._lent.values()), force=self._rules.force)

    def _follow(self, local: Plugged) -> bool:
        """Export one device, or not; whether that is new."""
        busid, known = local.info.busid, self._exported.get(local.info.busid)
        rule, facts = self._rule(local)
        if known is not None and rule is not None and _same(known.info, local.info):
            self._leaving.pop(busid, None)  # it was missing from one look
            if rule != known.rule:
                self._exported[busid] = Exported(known.info, rule, known.manufacturer, known.product, known.serial)
            return False
        if known is not None and not _same(known.info, local.info) and self._is_leaving(busid):
            return False
        if rule is None:
            if known is not None:
                withheld = self._withheld.get(busid)
                why, by = (withheld.why, withheld.by) if withheld else ("is not exported any more", "user")
                self._withdraw(busid, why, by)
            return known is not None
        if known is None and 0 < self._max_devices <= len(self._exported):
            self._remark(busid, f"{local.info} is not exported: {self._max_devices} devices are, and that is the limit")
            return False
        exported = Exported(local.info, rule, local.manufacturer, local.product, local.serial)
        self._exported[busid] = exported
        self._leaving.pop(busid, None)
        # Whatever the client makes of it, by another configuration for example, the rules are about all of it.
        whole = replace(local.info, interfaces=tuple(local.all_interfaces))
        serial = local.serial if local.serial_is_known else None
        opening = partial(self._opened, local, exported)
        self._server.add(local.info, opening, local.serial, str(rule), ruled=(whole, serial))
        log.info("%s is exported%s", exported, f", in place of {known}" if known is not None else "")
        self._warn(local, facts)
        return True

    def _rule(self, local: Plugged) -> tuple[ExportRule | None, list[Use]]:
        """By which a device is to be exported, and what this machine does with it."""
        info, serial = local.info, local.serial
        if info.busid in self._withheld:
            return None, []
        rules = self._in_force
        rule = rules.exporting(info, serial, is_foreign=attached_from_elsewhere(local.sysfs))
        if rule is None:
            return None, []
        facts = uses(local.sysfs, roots=self._roots)
        disk = _disk(facts)
        if disk is not None:
            rule = rules.exporting(info, serial, is_in_use=True)
            if rule is None:
                self._remark(info.busid, f"{info} is not exported: it is {disk}; name it, or use --force")
        return rule, facts

    def _is_leaving(self, busid: str) -> bool:
        """Whether a device that is not there any more is to be let end its session: its last URBs are answered then."""
        info = self._exported[busid].info
        if all(exported.info is not info for exported in self._open.copy().values()):
            self._leaving.pop(busid, None)
            return False
        return time.monotonic() < self._leaving.setdefault(busid, time.monotonic() + _PATIENCE)

    def _withdraw(self, busid: str, why: str, by: str) -> None:
        known = self._exported.pop(busid)
        self._leaving.pop(busid, None)
        self._server.remove(busid, f"its device {why}", by)
        log.info("%s %s", known, why)

    def _warn(self, local: Plugged, facts: list[Use]) -> None:
        """Report what this machine loses with a device, before a client takes it."""
        losses = [str(use) for use in facts if use.vital or use.kind == KEYBOARD]
        if losses:
            self._remark(
                local.info.busid, f"{local.info} is {', '.join(losses)}: a client that attaches it takes it from here"
            )

    def _remark(self, busid: str, text: str) -> None:
        """Report it once, not at each look."""
        if self._remarked.get(busid) != text:
            self._remarked[busid] = text
            log.warning("%s", text)

    # -- threads of connections

    def _opened(self, local: Plugged, exported: Exported) -> Device:
        """The device for a client. Raises UsbipError."""
        facts = uses(local.sysfs, roots=self._roots)  # a disk may be mounted since it was plugged in
        disk = _disk(facts)
        if disk is not None and exported.rule.is_broad and not self._rules.force:
            raise DeviceNotFound(f"{exported.info} is {disk}: name it, or use --force")
        self._warn(local, facts)
        device = local.open(reset=self._reset)
        self._open[device] = exported
        if self._closing and isinstance(device, Resetting):  # meanwhile
            device.resets = False
        try:
            return Lent(self._observed(device, exported), partial(self._released, device))
        except BaseException:
            device.close()
            self._released(device)
            raise

    def _released(self, device: Device) -> None:
        self._open.pop(device, None)
        if self._leaving:
            self._changed.set()
