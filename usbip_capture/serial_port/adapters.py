"""The adapters that this process has imported, and how the one that a URL means is found."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from usbip_capture.device import Device
from usbip_capture.errors import DeviceNotFound, ImportRefused, LocalProtocolError, UsbipError
from usbip_capture.host.reimport import import_first, places, released, retry
from usbip_capture.serial_port.adapter import Adapter
from usbip_capture.serial_port.url import PortUrl
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.uart.ports import Port
from usbip_capture.usb.info import DeviceInfo, busid_order
from usbip_capture.wire.structs import OpStatus

T = TypeVar("T")
#: Makes what was imported a captured device.
Wrap = Callable[[Device], Device]

_lock = threading.Lock()
_server_locks: dict[ServerAddress, threading.Lock] = {}
_adapters: dict[ServerAddress, list[Adapter]] = {}


def take_port(url: PortUrl, wrap: Wrap, opened: Callable[[Adapter, Port], None]) -> None:
    """Find the port that a URL means, import its device if this process has not, and have it `opened`.

    Raises UsbipError: nothing like that there, in use, no serial device, or what `opened` raises.
    """
    with _lock:
        server_lock = _server_locks.setdefault(url.server, threading.Lock())
    with server_lock:
        adapter, port = _shared(url) or _imported(url, wrap)
        try:
            opened(adapter, port)
        except BaseException:
            adapter.release(adapter.users.get(port.interface))
            raise
        adapter.reconnect = max(adapter.reconnect, url.reconnect)
        adapter.watch()


def _shared(url: PortUrl) -> tuple[Adapter, Port] | None:
    """A free port of an adapter that this process has already. Raises ImportRefused when it has it, but none free."""
    with _lock:
        ours = list(_adapters.get(url.server, ()))
    fitting = [a for a in ours if url.selector.matches(a.device.info) and url.serial in ("", a.serial)]
    for adapter in fitting:
        port = adapter.free_port(url.interface)
        if port is not None:
            if url.pcap and not adapter.captured:
                raise LocalProtocolError(
                    f"device {adapter.device.info} is in use by this program, not captured: give pcap= to the port "
                    "that is opened first"
                )
            if url.offer and not adapter.offered:
                raise LocalProtocolError(
                    f"device {adapter.device.info} is in use by this program, not offered: give offer=1 to the port "
                    "that is opened first"
                )
            return adapter, port
    if fitting and url.selector.busid:
        what = "its ports are" if url.interface is None else f"its port at interface {url.interface} is"
        raise ImportRefused(
            f"device {fitting[0].device.info} of {url.server} is in use by this program, and {what} open already",
            OpStatus.DEV_BUSY,
        )
    return None


def _imported(url: PortUrl, wrap: Wrap) -> tuple[Adapter, Port]:
    """A port of a device that is imported for it. Raises UsbipError."""
    if url.selector.busid and not url.serial:
        return _adapter(url, Selector(busid=url.selector.busid), wrap)
    if not url.serial and url.instance is None:
        return _adapter(url, Selector(busid=_await(url, lambda: url.server.find(url.selector)).busid), wrap)
    return _by_serial_or_instance(url, wrap)


def _by_serial_or_instance(url: PortUrl, wrap: Wrap) -> tuple[Adapter, Port]:
    devices = _await(url, lambda: _candidates(url))
    if not url.serial:
        index = url.instance or 0
        if index >= len(devices):
            raise DeviceNotFound(
                f"{url.server.offers} {len(devices)} free {url.device} only: there is no instance {index}"
            )
        return _adapter(url, Selector(busid=devices[index].busid), wrap)
    seen, left = [], url.instance or 0
    for info in devices:
        try:
            adapter, port = _adapter(url, Selector(busid=info.busid), wrap)
        except UsbipError as error:
            seen.append(f"{info}: {error}")
            continue
        if adapter.serial == url.serial:
            if not left:
                return adapter, port
            left -= 1
        seen.append(f"{info} has {adapter.serial or 'none'}")
        adapter.release()
    raise DeviceNotFound(f"{url.server.offers} no serial device with the serial number {url.serial}: {'; '.join(seen)}")


def _candidates(url: PortUrl) -> list[DeviceInfo]:
    devices = [info for info in url.server.devices() if url.selector.matches(info)]
    if not devices:
        url.server.find(url.selector)  # raises, with a sentence that lists what there is
    return sorted(devices, key=lambda info: busid_order(info.busid))


def _adapter(url: PortUrl, selector: Selector, wrap: Wrap) -> tuple[Adapter, Port]:
    device = wrap(_await(url, lambda: url.server.import_device(selector)))
    released.take(url.server, device.info.busid)
    try:
        adapter = Adapter(
            device,
            str(url.server),
            lambda adapter: wrap(import_first(url.server, _places(url, adapter))),
            lambda adapter: _forget(url.server, adapter),
        )
        port = adapter.free_port(url.interface)
    except BaseException:
        device.close()
        released.add(url.server, device.info)
        raise
    assert port is not None
    adapter.captured, adapter.offered = bool(url.pcap), url.offer
    with _lock:
        _adapters.setdefault(url.server, []).append(adapter)
    return adapter, port


def _await(url: PortUrl, attempt: Callable[[], T]) -> T:
    """What `attempt` returns; tried again for a while when this process has just released what is meant."""

    def pause(seconds: float) -> bool:
        if not any(url.selector.matches(info) for info in released.of(url.server)):
            return True
        time.sleep(seconds)
        return False

    return retry(attempt, pause=pause)


def _places(url: PortUrl, adapter: Adapter) -> Iterator[Selector]:
    """Where a device that was lost may be: at the same place, whatever it is now; or one of its kind elsewhere.

    The caller compares serial numbers then, and asks again. A device that has none is looked for elsewhere only if the
    URL did not name which of several it is: its bytes must not go to its neighbour.
    """
    info = adapter.device.info
    here, _ = places(info)
    yield here
    if not adapter.serial and (url.selector.busid or url.instance is not None):
        return
    elsewhere = [
        other.busid
        for other in url.server.devices()
        if other.vid_pid == info.vid_pid and other.busid not in (info.busid, *adapter.strangers)
    ]
    if len(elsewhere) == 1 or (elsewhere and adapter.serial):
        yield Selector(busid=elsewhere[0])


def _forget(server: ServerAddress, adapter: Adapter) -> None:
    with _lock:
        ours = _adapters.get(server, [])
        if adapter in ours:
            ours.remove(adapter)
    released.add(server, adapter.device.info)
