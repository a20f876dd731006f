"""A guest whose USB devices come and go: plugged in, exported by its usbipd, attached from other servers, or gadgets.

Ref: Linux tools/usb/usbip/README; Documentation/usb/gadget_configfs.rst
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.kernel.rig.devices import (
    CONTROLLER_ARGUMENTS,
    CONTROLLERS,
    DEVICES,
    EchoServer,
    Plugged,
    hub_ports,
    root_ports,
)
from tests.kernel.rig.host import RigError
from tests.kernel.rig.image import GADGET_PORT
from tests.kernel.rig.machine import HOST_ADDRESS, Machine

_SYSFS = "/sys/bus/usb/devices"
_GADGET = "/sys/kernel/config/usb_gadget/g"
#: Seconds, for what a guest on a machine that does much else may need.
_TIMEOUT = 60.0
_GADGET_MODULES = {"SourceSink": "ss_lb", "Loopback": "ss_lb"}


class Guest(Machine):
    """Offers at `usbip_port` what `export` gave to usbip-host, and at `gadget_port` a gadget on usbip-vudc."""

    def __init__(self, *, usbip_port: int = 0, snapshot: bool = True) -> None:
        self._ports = root_ports()
        self._plugged: dict[str, Plugged] = {}
        self._numbers = itertools.count()
        super().__init__(devices=CONTROLLER_ARGUMENTS, usbip_port=usbip_port, snapshot=snapshot)

    def close(self) -> None:
        super().close()
        for entry in self._plugged.values():
            entry.backend.close()
        self._plugged.clear()

    # Devices

    def plug(self, kind: str, bus: str = "xhci", *, file: Path | None = None, socket: Path | None = None) -> str:
        """Plug one of `DEVICES` in; return its busid in the guest, once its kernel knows it.

        bus: xhci, xhci-ss (SuperSpeed), ehci or uhci, or the busid of a hub plugged in before.
        file: a storage's disk image.
        socket: the Unix socket to connect a serial (an echo without it) or a redir to.
        """
        entry = self._place(kind, bus)
        try:
            self._add_backend(entry, file, socket)
            driver = {
                key: value.format(id=entry.name) if isinstance(value, str) else value
                for key, value in DEVICES[kind].items()
            }
            hcd = entry.bus.removesuffix("-ss")
            self.qmp("device_add", id=f"dev-{entry.name}", bus=f"{hcd}.0", port=entry.port, **driver)
        except BaseException:
            entry.backend.close()
            entry.ports.release(entry.port)
            raise
        busid = f"{self.bus(entry.bus)}-{entry.port}"
        self._plugged[busid] = entry
        self._wait_device(busid)
        return busid

    def unplug(self, busid: str) -> None:
        """Pull a device out, and wait until the guest has noticed."""
        if busid not in self._plugged:
            raise RigError(f"nothing is plugged in at {busid}")
        entry = self._plugged.pop(busid)
        name = f"dev-{entry.name}"
        self.qmp("device_del", id=name)
        self.qmp.wait("DEVICE_DELETED", lambda data: data.get("device") == name)
        entry.backend.close()
        entry.ports.release(entry.port)
        self._poll(f"[ ! -e {_SYSFS}/{busid} ]")

    def is_plugged(self, busid: str) -> bool:
        return busid in self._plugged

    def bus(self, controller: str) -> int:
        """The guest's number for a bus: xhci, xhci-ss, ehci, uhci, or dummy once there is a gadget on it."""
        hcd, _, super_speed = controller.partition("-")
        if hcd in CONTROLLERS:
            root = f"/sys/bus/pci/devices/0000:00:{CONTROLLERS[hcd][1]:02x}.0"
        else:
            root = f"/sys/devices/platform/{hcd}_hcd.0"
        listed = self.run(f"ls -d {root}/usb[0-9]*").text.split()
        numbers = sorted(int(path.rpartition("usb")[2]) for path in listed)
        return numbers[-1 if super_speed else 0]

    def device_file(self, busid: str) -> str:
        """usbfs's file of a device."""
        folder = f"{_SYSFS}/{busid}"
        bus, device = (int(number) for number in self.run(f"cat {folder}/busnum {folder}/devnum").text.split())
        return f"/dev/bus/usb/{bus:03}/{device:03}"

    def send_keys(self, *keys: str) -> None:
        """Press and release keys of the plugged keyboard, one after another, named as QEMU does ("a", "ret")."""
        for key in keys:
            self.qmp("send-key", keys=[{"type": "qcode", "data": key}], **{"hold-time": 50})

    # USB/IP

    def export(self, busid: str) -> str:
        """Give a device to usbip-host, so that usbipd offers it; return its busid."""
        self.run(f"usbip bind -b {busid}")
        return busid

    def wait_available(self, busid: str) -> None:
        """Until an exported device can be imported: when a client leaves, the kernel resets it first."""
        status = f"/sys/bus/usb/drivers/usbip-host/{busid}/usbip_status"
        self._poll(f'[ "$(cat {status} 2>/dev/null)" = 1 ]')  # SDEV_ST_AVAILABLE

    def attach(self, port: int, busid: str, host: str = HOST_ADDRESS, timeout: float = 30.0) -> str:
        """Import a device from a server, on this machine's loopback unless given another; return its busid here."""
        self.run("modprobe vhci-hcd", timeout=timeout)
        before = self._attached().keys()
        self.run(f"usbip --tcp-port {port} attach -r {host} -b {busid}", timeout=timeout)
        local = self.wait_until(lambda: self._attached().keys() - before, timeout).pop()
        self._wait_device(local)
        return local

    def detach(self, local_busid: str) -> None:
        """Give an attached device back to its server."""
        self.run(f"usbip detach -p {self._attached()[local_busid]}")
        self._poll(f"[ ! -e {_SYSFS}/{local_busid} ]")

    def detach_all(self) -> None:
        """Have all that is attached leave, without waiting for drivers that do not let go; it may leave by itself."""
        for port in self._attached().values():
            self.run(f"usbip detach -p {port}", check=False)

    def gadget(
        self,
        functions: Sequence[str],
        udc: str = "usbip-vudc.0",
        settings: Mapping[str, str] | None = None,
        binary: Mapping[str, bytes] | None = None,
        ids: tuple[int, int] = (0x1D6B, 0x0104),
    ) -> None:
        """Make a USB gadget of configfs functions, such as SourceSink.0, and offer it.

        udc: usbip-vudc.0, with that busid at `gadget_port`; or dummy_udc.0, a device on the guest's bus "dummy".
        settings: what to write to files of the functions, as {"mass_storage.0/lun.0/file": "/tmp/disk"}.
        binary: the same for what is not text. ids: idVendor and idProduct.
        """
        script = [
            f"modprobe {'usbip-vudc' if 'vudc' in udc else 'dummy_hcd'}; modprobe libcomposite",
            "mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config",
            f"mkdir -p {_GADGET} && cd {_GADGET}",
            f"echo {ids[0]:#x} >idVendor; echo {ids[1]:#x} >idProduct",
            "mkdir -p strings/0x409 configs/c.1/strings/0x409",
            "echo gadget >strings/0x409/product; echo 0001 >strings/0x409/serialnumber",
        ]
        for function in functions:
            name = function.partition(".")[0]
            script.append(f"modprobe usb_f_{_GADGET_MODULES.get(name, name)}; mkdir functions/{function}")
        script += [f"echo '{value}' >functions/{file}" for file, value in (settings or {}).items()]
        for file, content in (binary or {}).items():
            escaped = "".join(f"\\x{byte:02x}" for byte in content)
            script.append(f"printf '{escaped}' >functions/{file}")
        script += [f"ln -s {_GADGET}/functions/{function} configs/c.1/" for function in functions]
        script.append(f"echo {udc} >UDC")
        if "vudc" in udc:
            script.append(f"usbipd -4 -e -D -t {GADGET_PORT}")
            script.append(f"until netstat -ltn | grep -q :{GADGET_PORT}; do usleep 20000; done")
        self.run("; ".join(script))
        if "dummy" in udc:
            self._wait_device(f"{self.bus('dummy')}-1")

    def remove_gadget(self) -> None:
        """Take away the gadget on dummy_hcd."""
        self.run(
            f"cd {_GADGET}; echo >UDC; rm configs/c.1/*.*; rmdir configs/c.1/strings/* configs/c.1;"
            f" rmdir functions/* strings/*; cd /; rmdir {_GADGET}"
        )

    def _place(self, kind: str, bus: str) -> Plugged:
        if bus in self._ports:
            ports, controller = self._ports[bus], bus
        elif bus in self._plugged and (below := self._plugged[bus].below):
            ports, controller = below, self._plugged[bus].bus
        else:
            raise RigError(f"no such bus or hub: {bus}")
        entry = Plugged(f"{kind}-{next(self._numbers)}", kind, controller, ports.take(), ports)
        if DEVICES[kind]["driver"] == "usb-hub":
            entry.below = hub_ports(entry.port)
        return entry

    def _add_backend(self, entry: Plugged, file: Path | None, socket: Path | None) -> None:
        """Make what is behind a device in QEMU; what removes it again goes into `entry.backend`."""
        name, undo = entry.name, entry.backend
        if entry.kind == "storage":
            disk = {"driver": "file", "filename": str(file)}
            self.qmp("blockdev-add", driver="raw", file=disk, **{"node-name": name})
            undo.callback(self._undo, "blockdev-del", **{"node-name": name})
        elif entry.kind in ("serial", "redir"):
            if socket is None:
                socket = self.folder / f"{name}.sock"
                undo.callback(EchoServer(socket).close)
            address = {"type": "unix", "data": {"path": str(socket)}}
            self.qmp("chardev-add", id=name, backend={"type": "socket", "data": {"server": False, "addr": address}})
            undo.callback(self._undo, "chardev-remove", id=name)
        elif entry.kind == "net":
            self.qmp("netdev_add", type="user", id=name, net="10.0.3.0/24")
            undo.callback(self._undo, "netdev_del", id=name)

    def _undo(self, command: str, **arguments: str) -> None:
        with contextlib.suppress(RigError, OSError):  # QEMU may be gone, and all of this with it
            self.qmp(command, **arguments)

    def _wait_device(self, busid: str, timeout: float = _TIMEOUT) -> None:
        """Until the kernel has configured it."""
        self._poll(f"[ -e {_SYSFS}/{busid}/{busid}:1.0 ]", timeout)

    def _poll(self, condition: str, timeout: float = _TIMEOUT) -> None:
        """Ask again in the guest until the shell's `condition` holds."""
        steps = int(timeout * 50)  # more than `timeout`, as each also takes time in emulation
        self.run(
            f"i=0; until {condition}; do usleep 20000; i=$((i+1)); [ $i -lt {steps} ] || exit 1; done",
            timeout=4 * timeout,
        )

    def _attached(self) -> dict[str, int]:
        """Local busids of vhci-hcd's devices and the ports they are on. Ref: vhci_sysfs.c, status_show_vhci()"""
        rows = self.run("cat /sys/devices/platform/vhci_hcd.0/status").text.splitlines()[1:]
        fields = [row.split() for row in rows]
        return {row[-1]: int(row[1]) for row in fields if row and row[2] == "006" and row[-1] != "0-0"}
