"""labgrid's exporter, which knows `UsbipDevice`: a server for each that is acquired, ended when it is released."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from labgrid.exceptions import NoConfigFoundError
from labgrid.remote import exporter
from labgrid.remote.config import ResourceConfig
from labgrid.remote.exporter import ResourceExport, exports

from usbip_capture.access.rules import ALLOW, CLOSED, AccessRules
from usbip_capture.errors import FileFormatError, LocalProtocolError
from usbip_capture.labgrid.resources import UsbipDevice, plugged_selector
from usbip_capture.lending.restore import restore_and_log
from usbip_capture.net.address import format_address
from usbip_capture.net.networks import WARNING, is_loopback, parse_networks
from usbip_capture.net.ruling import rules_for
from usbip_capture.serving import LocalServer, serve
from usbip_capture.system.shown import one_line

#: What labgrid's exporter ends with when its coordinator cannot be reached, for who starts it again.
NO_COORDINATOR = 100
_CLASS, _NETWORK_CLASS = "UsbipDevice", "NetworkUsbipDevice"
_LOOPBACK, _EVERYWHERE = "127.0.0.1", "0.0.0.0"
_running: list[LocalServer] = []


@dataclass(slots=True, frozen=True)
class Lending:
    """What the exporter's configuration has of a device; none of it is sent to the coordinator.

    device: as `UsbipDevice` has it. listen: an address of this machine; loopback if nobody else is allowed, else all.
    allow: networks, rules: of access, as the server's configuration has them.
    """

    device: str
    listen: str = ""
    allow: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()

    @classmethod
    def parse(cls, given: object) -> Lending:
        """Raises LocalProtocolError."""
        if not isinstance(given, Mapping):
            raise LocalProtocolError(f"write what is lent below {_CLASS}, such as: device: '1-1.4'")
        for key in given:
            if key not in cls.__slots__:
                raise LocalProtocolError(f"there is no {key!r} in {_CLASS}: {', '.join(cls.__slots__)}")
        made = cls(
            given.get("device", ""),
            given.get("listen", "") or "",
            *(_texts(key, given.get(key) or ()) for key in ("allow", "rules")),
        )
        made.check()
        return made

    def check(self) -> None:
        """Raises LocalProtocolError."""
        if not isinstance(self.listen, str):
            raise LocalProtocolError(f"listen: {self.listen!r} is not an address: write one such as '192.0.2.10'")
        plugged_selector(self.device)
        allowed = rules_for(parse_networks(",".join(self.allow)), ALLOW)
        if not is_loopback(self.place) and not AccessRules(CLOSED, [*self.rules, *allowed]).lets_others_in:
            raise LocalProtocolError(
                f"other machines can connect to {self.place}, and {WARNING}: name who may, such as allow: 192.0.2.0/24"
            )

    @property
    def place(self) -> str:
        """The address where its server listens."""
        return self.listen or (_EVERYWHERE if self.allow or self.rules else _LOOPBACK)


class UsbipDeviceExport(ResourceExport):
    """A `UsbipDevice` of the exporter: at clients it is a `NetworkUsbipDevice`, with a port while it is acquired."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._lending = Lending.parse(self.local_params)
        self.local = UsbipDevice(None, None, device=self._lending.device)
        self.data["cls"] = _NETWORK_CLASS
        self._server: LocalServer | None = None
        if is_loopback(self._lending.place) and not is_loopback(self.host):
            self.proxy_required = True  # by labgrid's ssh, from where it is loopback

    def _get_start_params(self) -> dict[str, Any]:
        return {"busid": self.local.busid}

    def _get_params(self) -> dict[str, Any]:
        port = self._server.addresses[0][1] if self._server is not None else None
        host = _LOOPBACK if self.proxy_required and is_loopback(self._lending.place) else self.host
        extra = {"device": self.local.description}
        return {"host": host, "port": port, "busid": self.local.busid, "extra": extra}

    def _start(self, start_params: dict[str, Any]) -> None:
        busid, lending = start_params["busid"], self._lending
        self._server = serve(
            [busid],
            listen=[format_address(lending.place, 0)],
            allow=lending.allow,
            rules=lending.rules,
            name=f"labgrid {busid}",
            announce=False,
        )
        _running.append(self._server)
        self.local.lent = True
        self.logger.info("%s is lent to place %s at %s", busid, self.acquired, self._server.address)

    def _stop(self, start_params: dict[str, Any]) -> None:
        server, self._server = self._server, None
        self.local.lent = False
        if server is not None:
            _running.remove(server)
            server.close()
            self.logger.info("%s is released", start_params["busid"])


exports[_CLASS] = UsbipDeviceExport


def run(resources: str, arguments: list[str], known: Mapping[str, object]) -> int:
    """Export until stopped; the exit code. arguments: of labgrid's exporter. known: what templates may use.

    Raises UsbipError for a configuration that cannot be meant.
    """
    check(resources, known)
    restore_and_log()
    sys.argv = ["labgrid-exporter", *arguments, resources]
    try:
        exporter.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        while _running:
            _running.pop().close()
    return 0


def check(resources: str, known: Mapping[str, object]) -> None:
    """Read the exporter's configuration, as labgrid will. Raises FileFormatError, with the resource that is wrong."""
    errors = (import_module("jinja2").TemplateError, import_module("yaml").YAMLError)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it reads, and will once more
            groups = ResourceConfig(resources, dict(known)).data
    except NoConfigFoundError as error:
        raise LocalProtocolError(
            f"there is no file {one_line(resources)}: `usbip-capture labgrid-config` writes one"
        ) from error
    except (OSError, UnicodeDecodeError, *errors) as error:
        raise FileFormatError(
            f"{one_line(resources)} cannot be read: {' '.join(one_line(str(error)).split())}"
        ) from error
    if not isinstance(groups, dict):
        raise FileFormatError(f"{one_line(resources)} has no groups of resources: see docs/labgrid.md")
    for group, members in groups.items():
        if not isinstance(members, dict):
            raise FileFormatError(f"{one_line(resources)}: {one_line(str(group))} is not a group of resources")
        for name, params in members.items():
            _check_resource(f"{one_line(resources)}: {one_line(f'{group}/{name}')}", name, params)


def _check_resource(where: str, name: str, params: object) -> None:
    if name == "location" or params is None:
        return
    if not isinstance(params, dict):
        raise FileFormatError(f"{where}: write what is exported below it")
    own = dict(params)
    if own.pop("cls", name) != _CLASS:
        return
    try:
        Lending.parse(own)
    except LocalProtocolError as error:
        raise FileFormatError(f"{where}: {error}") from error


def _texts(key: str, value: object) -> tuple[str, ...]:
    """A list of texts, or one. Raises LocalProtocolError."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(item, str) for item in listed):
        raise LocalProtocolError(f'{key} must be a list of strings, such as ["..."]')
    return tuple(listed)
