"""What a server exports now, asked by the button Reload; the only question that goes to the network."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeAlias

from usbip_capture.demo.device import DESCRIPTORS
from usbip_capture.errors import UsbipError
from usbip_capture.net.address import DEFAULT_PORT, SSH
from usbip_capture.servers.address import DEMO, LOCAL, ServerAddress
from usbip_capture.servers.configuration import place_of
from usbip_capture.servers.known import KnownDevice, KnownServer, read_cache
from usbip_capture.servers.memory import remember_devices, remember_server
from usbip_capture.usb.names import device_name

#: Seconds more for ssh, which has to log in first.
_SSH_TIME = 5.0
_Answer: TypeAlias = "tuple[list[KnownDevice], str]"


def list_devices(host: str, port: str, timeout: float) -> tuple[list[KnownDevice], str]:
    """The devices, and a sentence if they could not be had within `timeout` seconds, name resolution included.

    Products and serial numbers are those of earlier imports: to ask a device for them is to take it from its user.
    """
    if not host.strip():
        return [], "give the server's name first, then Reload"
    port = port.strip() or str(DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        return [], f"{port!r} is not a TCP port (1 to 65535): correct it, then Reload"
    limit = timeout + (_SSH_TIME if _goes_through_ssh(host) else 0.0)
    return _within(limit, host.strip(), lambda: _ask(host, int(port), timeout))


def list_at_dashboard(
    server: KnownServer | str, port: str, token: str, timeout: float
) -> tuple[list[KnownDevice], str]:
    """The same, of a server that is joined: asked there. server: one that is known, or as a person writes it."""
    named = server.address if isinstance(server, KnownServer) else server.strip()
    limit = timeout + (_SSH_TIME if named.startswith(f"{SSH}://") else 0.0)
    return _within(limit, named, lambda: _ask_dashboard(server, port, token, timeout))


def _within(limit: float, name: str, ask: Callable[[], _Answer]) -> _Answer:
    answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
    threading.Thread(target=lambda: answers.put(ask()), daemon=True).start()
    try:
        return answers.get(timeout=limit)
    except queue.Empty:
        return [], f"{name} does not answer within {limit:g} s"


def _ask_dashboard(server: KnownServer | str, port: str, token: str, timeout: float) -> _Answer:
    from usbip_capture.server_stream.state import exported_devices
    from usbip_capture.servers.dashboards import Dashboard

    try:
        if isinstance(server, KnownServer):
            dashboard = Dashboard.known(server, token, timeout)
        else:
            dashboard = Dashboard.parse(server, int(port) if port.isdecimal() else DEFAULT_PORT, token, timeout)
        devices = exported_devices(dashboard)
    except UsbipError as error:
        return [], str(error)
    except Exception as error:  # noqa: BLE001  an exception would hide all interfaces
        return [], f"{server} cannot be asked: {error}"
    return devices, "" if devices else f"{dashboard} exports no device now"


def _goes_through_ssh(host: str) -> bool:
    try:
        return place_of(host)[0].startswith(f"{SSH}://")
    except UsbipError:
        return False


def _ask(host: str, port: int, timeout: float) -> tuple[list[KnownDevice], str]:
    try:
        server = ServerAddress.parse(host, port, timeout)
        infos = server.devices()
    except UsbipError as error:
        return [], str(error)
    except Exception as error:  # noqa: BLE001  an exception would hide all interfaces
        return [], f"{host} cannot be asked: {error}"
    devices = [KnownDevice(info.busid, "{:04x}:{:04x}".format(*info.vid_pid), kind=device_name(info)) for info in infos]
    if server.host == DEMO:
        _, devices[0].name, devices[0].serial = DESCRIPTORS.strings[:3]
    elif server.host == LOCAL:
        _name_local(devices)
    elif server.is_recording:
        from usbip_capture.servers.recording_host import names_in_recording

        names = names_in_recording(server.host)
        for device in devices:
            device.name, device.serial = names.get(device.busid, ("", ""))
    else:
        _name(devices, read_cache().devices.get(server.place, []))
        remember_server(*server.place)
        remember_devices(*server.place, devices)
    return devices, "" if devices else server.empty


def _name_local(devices: list[KnownDevice]) -> None:
    """As the system has read them when they were plugged in."""
    from usbip_capture.servers import local

    there = {device.info.busid: device for device in local.devices()}
    for known in devices:
        if known.busid in there:
            known.name, known.serial = there[known.busid].product, there[known.busid].serial


def _name(devices: list[KnownDevice], before: list[KnownDevice]) -> None:
    """Give the devices the products and serial numbers that were known before, whether or not the cache is writable."""
    known = {(device.busid, device.vid_pid): device for device in before}
    for device in devices:
        same = known.get((device.busid, device.vid_pid))
        if same is not None:
            device.name, device.serial = same.name, same.serial
