"""Captures any PyUSB backend, such as libusb's with a device of this machine, into the same format as ours."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from usb.backend import IBackend

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.devices.over_pyusb import device_info, filled_packets, status_of
from usbip_capture.host.transfers import iso_packets
from usbip_capture.usb import setup as requests
from usbip_capture.usb.descriptors import read_configuration
from usbip_capture.usb.endpoints import EndpointMap
from usbip_capture.usb.urb import DIR_IN, FLAG_DIR_IN, ISO_ASAP, Completion, TransferType, Urb

_LABEL = "usbip-capture: descriptors read at the start"
_TIMEOUT_MS = 1000


class _Handle:
    """A handle of the wrapped backend, and what the capture must know of its device."""

    def __init__(self, raw: Any, channel: UsbChannel, endpoints: EndpointMap) -> None:
        self.raw = raw
        self.channel = channel
        self.endpoints = endpoints


class PcapBackendWrapper(IBackend):
    """`backend`, with every transfer captured into `pcap`: a PcapWriter, a path or a binary stream.

    Who closes it is as with `get_backend`. What the backend asks of the device by itself is not seen; the descriptors
    are read once more at the first opening, so that Wireshark can decode the rest. PyUSB does not report the lengths of
    isochronous packets one by one: they are shown as filled one after the other. Attributes that are not
    `usb.backend.IBackend`'s are those of the wrapped backend. Raises TypeError for what is not a backend.
    """

    def __init__(self, backend: IBackend, pcap: PcapWriter | str | os.PathLike[str] | BinaryIO) -> None:
        if not isinstance(backend, IBackend):
            missing = " (PyUSB's get_backend gives it where the library is not installed)" if backend is None else ""
            raise TypeError(f"a PyUSB backend is needed, not {backend!r}{missing}")
        self._backend = backend
        self._owned = not isinstance(pcap, PcapWriter)
        self._writer = pcap if isinstance(pcap, PcapWriter) else PcapWriter(pcap)
        self._channels: dict[str, tuple[UsbChannel, EndpointMap]] = {}

    def close(self) -> None:
        """Complete the capture, unless it is a PcapWriter. May be called again."""
        if self._owned:
            self._writer.close()

    def __enter__(self) -> PcapBackendWrapper:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._backend, name)

    # -- as they are

    def enumerate_devices(self) -> Any:
        return self._backend.enumerate_devices()

    def get_parent(self, dev: Any) -> Any:
        return self._backend.get_parent(dev)

    def get_device_descriptor(self, dev: Any) -> Any:
        return self._backend.get_device_descriptor(dev)

    def get_configuration_descriptor(self, dev: Any, config: int) -> Any:
        return self._backend.get_configuration_descriptor(dev, config)

    def get_interface_descriptor(self, dev: Any, intf: int, alt: int, config: int) -> Any:
        return self._backend.get_interface_descriptor(dev, intf, alt, config)

    def get_endpoint_descriptor(self, dev: Any, ep: int, intf: int, alt: int, config: int) -> Any:
        return self._backend.get_endpoint_descriptor(dev, ep, intf, alt, config)

    def close_device(self, dev_handle: _Handle) -> Any:
        return self._backend.close_device(dev_handle.raw)

    def get_configuration(self, dev_handle: _Handle) -> int:
        return self._backend.get_configuration(dev_handle.raw)

    def claim_interface(self, dev_handle: _Handle, intf: int) -> Any:
        return self._backend.claim_interface(dev_handle.raw, intf)

    def release_interface(self, dev_handle: _Handle, intf: int) -> Any:
        return self._backend.release_interface(dev_handle.raw, intf)

    def is_kernel_driver_active(self, dev_handle: _Handle, intf: int) -> bool:
        return self._backend.is_kernel_driver_active(dev_handle.raw, intf)

    def detach_kernel_driver(self, dev_handle: _Handle, intf: int) -> Any:
        return self._backend.detach_kernel_driver(dev_handle.raw, intf)

    def attach_kernel_driver(self, dev_handle: _Handle, intf: int) -> Any:
        return self._backend.attach_kernel_driver(dev_handle.raw, intf)

    # -- captured

    def open_device(self, dev: Any) -> _Handle:
        raw = self._backend.open_device(dev)
        info = device_info(self._backend, dev)
        if info.busid in self._channels:
            channel, endpoints = self._channels[info.busid]
            channel.device(info)
            return _Handle(raw, channel, endpoints)
        channel = self._writer.add_usb_interface(info, server="local")
        handle = _Handle(raw, channel, EndpointMap(None, info.speed))
        self._channels[info.busid] = channel, handle.endpoints
        channel.label = _LABEL
        try:
            self._describe(handle)
        except Exception as error:  # noqa: BLE001  backends of others raise what their libraries do
            channel.comment(f"usbip-capture: the descriptors cannot be read: {error}")
        finally:
            channel.label = None
        return handle

    def set_configuration(self, dev_handle: _Handle, config_value: int) -> None:
        setup = requests.set_configuration(max(config_value, 0))
        self._setting(dev_handle, setup, lambda: self._backend.set_configuration(dev_handle.raw, config_value))

    def set_interface_altsetting(self, dev_handle: _Handle, intf: int, altsetting: int) -> None:
        setup = requests.set_interface(intf, altsetting)
        self._setting(
            dev_handle, setup, lambda: self._backend.set_interface_altsetting(dev_handle.raw, intf, altsetting)
        )

    def clear_halt(self, dev_handle: _Handle, ep: int) -> None:
        setup = requests.clear_halt(ep)
        self._setting(dev_handle, setup, lambda: self._backend.clear_halt(dev_handle.raw, ep))

    def reset_device(self, dev_handle: _Handle) -> Any:
        dev_handle.channel.comment("usbip-capture: the device is reset")
        return self._backend.reset_device(dev_handle.raw)

    def ctrl_transfer(
        self,
        dev_handle: _Handle,
        bmRequestType: int,
        bRequest: int,
        wValue: int,
        wIndex: int,
        data: array[int],
        timeout: int,
    ) -> int:
        view = memoryview(data).cast("B")
        setup = requests.Setup(bmRequestType, bRequest, wValue, wIndex, len(view)).pack()
        urb = Urb.control(setup, b"" if bmRequestType & DIR_IN else view)
        moved = _captured(
            dev_handle.channel,
            urb,
            view,
            lambda: self._backend.ctrl_transfer(dev_handle.raw, bmRequestType, bRequest, wValue, wIndex, data, timeout),
        )
        dev_handle.endpoints.follow(setup)
        return moved

    def bulk_write(self, dev_handle: _Handle, ep: int, intf: int, data: Any, timeout: int) -> int:
        return _transfer(dev_handle, TransferType.BULK, self._backend.bulk_write, ep, intf, data, timeout)

    def bulk_read(self, dev_handle: _Handle, ep: int, intf: int, buff: Any, timeout: int) -> int:
        return _transfer(dev_handle, TransferType.BULK, self._backend.bulk_read, ep, intf, buff, timeout)

    def intr_write(self, dev_handle: _Handle, ep: int, intf: int, data: Any, timeout: int) -> int:
        return _transfer(dev_handle, TransferType.INTERRUPT, self._backend.intr_write, ep, intf, data, timeout)

    def intr_read(self, dev_handle: _Handle, ep: int, intf: int, buff: Any, timeout: int) -> int:
        return _transfer(dev_handle, TransferType.INTERRUPT, self._backend.intr_read, ep, intf, buff, timeout)

    def iso_write(self, dev_handle: _Handle, ep: int, intf: int, data: Any, timeout: int) -> int:
        return _transfer(dev_handle, TransferType.ISOCHRONOUS, self._backend.iso_write, ep, intf, data, timeout)

    def iso_read(self, dev_handle: _Handle, ep: int, intf: int, buff: Any, timeout: int) -> int:
        return _transfer(dev_handle, TransferType.ISOCHRONOUS, self._backend.iso_read, ep, intf, buff, timeout)

    def _setting(self, handle: _Handle, setup: requests.Setup, call: Callable[[], object]) -> None:
        def done() -> int:
            call()
            return 0

        raw = setup.pack()
        _captured(handle.channel, Urb.control(raw), memoryview(b""), done)
        handle.endpoints.follow(raw)

    def _describe(self, handle: _Handle) -> None:
        """Have the descriptors in the capture, and know the endpoints."""
        count = self._descriptor(handle, requests.DT_DEVICE, 0, 18)[17]
        for index in range(count):
            handle.endpoints.add_configuration(read_configuration(index, partial(self._descriptor, handle)))
        handle.endpoints.activate(self._backend.get_configuration(handle.raw))

    def _descriptor(self, handle: _Handle, kind: int, index: int, length: int) -> bytes:
        buffer = array("B", bytes(length))
        setup = requests.get_descriptor(kind, index, 0, length)
        return bytes(buffer[: self.ctrl_transfer(handle, *setup[:4], buffer, _TIMEOUT_MS)])


def _transfer(
    handle: _Handle, kind: TransferType, call: Callable[..., int], ep: int, intf: int, data: Any, timeout: int
) -> int:
    view = memoryview(data).cast("B")
    endpoint = handle.endpoints.find(ep)
    interval = endpoint.interval if endpoint is not None else 0
    packets = iso_packets(endpoint, len(view)) if kind == TransferType.ISOCHRONOUS and endpoint is not None else ()
    flags = (FLAG_DIR_IN if ep & DIR_IN else 0) | (ISO_ASAP if packets else 0)
    outward = b"" if ep & DIR_IN else view
    urb = Urb(kind, ep, len(view), outward, flags=flags, interval=interval, packets=packets)
    return _captured(handle.channel, urb, view, lambda: call(handle.raw, ep, intf, data, timeout))


def _captured(channel: UsbChannel, urb: Urb, view: memoryview, call: Callable[[], int]) -> int:
    """Run `call`, shown to the capture as `urb`; `view` is the buffer that an IN transfer fills."""
    urb_id = channel.submitted(urb)
    try:
        moved = call()
    except BaseException as error:  # Ctrl-C too: no URB stays open in the capture
        channel.completed(urb_id, urb, Completion(status_of(error), packets=filled_packets(urb.packets, 0)))
        raise
    data = bytes(view[:moved]) if urb.endpoint & DIR_IN else b""
    channel.completed(urb_id, urb, Completion(0, moved, data, packets=filled_packets(urb.packets, moved)))
    return moved
