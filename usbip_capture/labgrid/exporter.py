"""labgrid's exporter, which knows `UsbipDevice`: a server for each that is acquired, ended when it is released."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from labgrid.exceptions import NoConfigFoundError
from labgrid.remote import exporter
from labgrid.remote.config import ResourceConfig
from labgrid.remote.exporter import ResourceExport, exports

from usbip_capture.errors import FileFormatError, LocalProtocolError
from usbip_capture.labgrid.lending import DEVICE_CLASS, LOOPBACK, Lending
from usbip_capture.labgrid.resources import UsbipDevice
from usbip_capture.lending.restore import restore_and_log
from usbip_capture.net.address import HTTP, HTTPS, SSH, TLS, format_address
from usbip_capture.net.networks import is_loopback
from usbip_capture.serving import LocalServer, serve
from usbip_capture.serving.fronts import Front
from usbip_capture.system.shown import one_line

#: What labgrid's exporter ends with when its coordinator cannot be reached, for who starts it again.
NO_COORDINATOR = 100
_NETWORK_CLASS = "NetworkUsbipDevice"
_running: list[LocalServer] = []


class UsbipDeviceExport(ResourceExport):
    """A `UsbipDevice` of the exporter: at clients it is a `NetworkUsbipDevice`, with a port while it is acquired."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._lending = Lending.parse(self.local_params)
        self.local = UsbipDevice(None, None, device=self._lending.device)
        self.data["cls"] = _NETWORK_CLASS
        self._server: LocalServer | None = None
        if not self._lending.tls and is_loopback(self._lending.place) and not is_loopback(self.host):
            self.proxy_required = True  # by labgrid's ssh, from where it is loopback

    def _get_start_params(self) -> dict[str, Any]:
        return {"busid": self.local.busid}

    def _get_params(self) -> dict[str, Any]:
        """What the coordinator gets, and anybody can read there."""
        host, port = self.host, None
        if self._lending.tls:
            host = f"{TLS}://{_bracketed(host)}"
        elif self.proxy_required and is_loopback(self._lending.place):
            host = LOOPBACK
        extra = {"device": self.local.description}
        if self._server is not None:
            listening = self._server.tls.addresses if self._server.tls is not None else self._server.addresses
            port = listening[0][1]
            if self._server.dashboard is not None:
                extra["dashboard"] = self._dashboard(self._server.dashboard)
        return {"host": host, "port": port, "busid": self.local.busid, "extra": extra}

    def _dashboard(self, front: Front) -> str:
        """Where clients find it, by ssh if it is on loopback."""
        address, port = front.addresses[0]
        if is_loopback(address) and not is_loopback(self.host):
            return f"{SSH}://{_bracketed(self.proxy or self.host)}/{port}"
        return f"{HTTPS if front.is_secure else HTTP}://{_bracketed(self.host)}:{port}"

    def _start(self, start_params: dict[str, Any]) -> None:
        busid, lending = start_params["busid"], self._lending
        place = format_address(lending.place, 0)
        self._server = serve(
            [busid],
            listen=[format_address(LOOPBACK, 0) if lending.tls else place],
            tls=[place] if lending.tls else (),
            client_ca=lending.client_ca,
            allow=lending.allow,
            rules=lending.rules,
            web=[lending.web] if lending.web else (),
            web_tls=lending.web_tls,
            web_host=[self.host] if _is_name(self.host) else (),
            name=f"labgrid {busid}",
            announce=False,
        )
        _running.append(self._server)
        self.local.lent = True
        self.logger.info("%s is lent to place %s at %s", busid, self.acquired, self._server.address)
        if self._server.tls is not None:
            self.logger.info("within TLS by the certificate %s", self._server.tls.fingerprint)

    def _stop(self, start_params: dict[str, Any]) -> None:
        server, self._server = self._server, None
        self.local.lent = False
        if server is not None:
            _running.remove(server)
            server.close()
            self.logger.info("%s is released", start_params["busid"])


exports[DEVICE_CLASS] = UsbipDeviceExport


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_name(host: str) -> bool:
    """Whether a browser may call a machine so: addresses need not be named."""
    return ":" not in host and not host.replace(".", "").isdigit()


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
    if own.pop("cls", name) != DEVICE_CLASS:
        return
    try:
        Lending.parse(own)
    except LocalProtocolError as error:
        raise FileFormatError(f"{where}: {error}") from error
