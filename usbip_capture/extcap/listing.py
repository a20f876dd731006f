"""What a server exports now, asked by the button Reload; the only question that goes to the network."""

from __future__ import annotations

import queue
import threading

from usbip_capture.errors import UsbipError
from usbip_capture.net.address import DEFAULT_PORT
from usbip_capture.servers.address import DEMO, ServerAddress
from usbip_capture.servers.known import KnownDevice, read_cache
from usbip_capture.servers.memory import remember_devices, remember_server
from usbip_capture.usb.names import device_name


def list_devices(host: str, port: str, timeout: float) -> tuple[list[KnownDevice], str]:
    """The devices, and a sentence if they could not be had within `timeout` seconds, name resolution included."""
    answers: queue.SimpleQueue[tuple[list[KnownDevice], str]] = queue.SimpleQueue()
    if not host.strip():
        return [], "give the server's name first, then Reload"
    port = port.strip() or str(DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        return [], f"{port!r} is not a TCP port (1 to 65535): correct it, then Reload"
    threading.Thread(target=lambda: answers.put(_ask(host, int(port), timeout)), daemon=True).start()
    try:
        return answers.get(timeout=timeout)
    except queue.Empty:
        return [], f"{host.strip()} does not answer within {timeout:g} s"


def _ask(host: str, port: int, timeout: float) -> tuple[list[KnownDevice], str]:
    try:
        server = ServerAddress.parse(host, port, timeout)
        infos = server.devices()
    except UsbipError as error:
        return [], str(error)
    except Exception as error:  # noqa: BLE001  an exception would hide all interfaces
        return [], f"{host} cannot be asked: {error}"
    before = {(d.busid, d.vid_pid): d for d in read_cache().devices.get((server.host, server.port), [])}
    devices = []
    for info in infos:
        vid_pid = "{:04x}:{:04x}".format(*info.vid_pid)
        known = before.get((info.busid, vid_pid), KnownDevice(info.busid, vid_pid))
        devices.append(KnownDevice(info.busid, vid_pid, known.name or device_name(info), serial=known.serial))
    if server.host != DEMO:
        remember_server(server.host, server.port)
        remember_devices(server.host, server.port, devices)
    return devices, "" if devices else f"{server} exports no device now"
