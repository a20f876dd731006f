"""What a command that talks to a device works with: the server, the device imported from it, what is recorded."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from usbip_capture.cli.terminal import Waiting, print_log
from usbip_capture.errors import LocalProtocolError
from usbip_capture.servers.address import LOCAL, Selector, ServerAddress, parse_selection
from usbip_capture.system.durations import milliseconds

if TYPE_CHECKING:
    from usbip_capture.capture.writer import PcapWriter
    from usbip_capture.device import Device
    from usbip_capture.errors import DeviceError
    from usbip_capture.host.handle import DeviceHandle
    from usbip_capture.host.opened import OpenDevice
    from usbip_capture.syslog.message import Message
    from usbip_capture.usb.setup import Setup

# Of bmRequestType. Ref: USB 2.0, table 9-2
_RECIPIENT, _INTERFACE = 0x1F, 0x01
_TYPE, _VENDOR = 0x60, 0x40
#: Seconds in which the device's log can still report on the last transfer.
_LOG_LINGER = 0.2


@dataclass(slots=True, frozen=True)
class Imported:
    """A device that is ours for now: itself, the host's side of it, and our opening of that."""

    server: ServerAddress
    remote: Device
    handle: DeviceHandle
    opened: OpenDevice

    def control(self, setup: Setup, data: bytes, seconds: float | None) -> bytes:
        """A control transfer; the interface that it concerns is claimed. Raises DeviceError."""
        if setup.bmRequestType & _RECIPIENT == _INTERFACE and setup.bmRequestType & _TYPE != _VENDOR:
            self.opened.claim(setup.wIndex & 0xFF)
        return self.handle.control(setup, data, seconds)


def transfer_timeout(args: argparse.Namespace) -> float | None:
    """Seconds of `groups.add_transfer_timeout`, in whole milliseconds; None if they are 0."""
    return milliseconds(args.transfer_timeout) / 1000 or None


def chosen_server(args: argparse.Namespace) -> ServerAddress:
    """The one server of `groups.add_server`. Raises LocalProtocolError."""
    return _server(args, args.server)


def chosen_servers(args: argparse.Namespace) -> list[ServerAddress]:
    """The servers of `groups.add_servers`; none if none was named."""
    hosts = [*args.servers, *([args.host] if args.host else [])]
    return [_server(args, host) for host in hosts]


def _server(args: argparse.Namespace, host: str) -> ServerAddress:
    return ServerAddress.parse(host, args.port, args.connect_timeout)


def chosen_device(args: argparse.Namespace) -> Selector:
    """The device of `groups.add_device`. Raises LocalProtocolError."""
    if (args.vid is None) != (args.pid is None):
        raise LocalProtocolError("--vid and --pid belong together: give both, or --device with a busid")
    if args.vid is not None and args.device:
        raise LocalProtocolError("use either --device, or --vid with --pid")
    selector = Selector.parse(args.device) if args.vid is None else Selector(vid_pid=(args.vid, args.pid))
    if args.serial_number is None:
        return selector
    if selector.serial or not args.serial_number:
        raise LocalProtocolError("--serial-number needs one serial number, and no serial= beside it")
    return replace(selector, serial=args.serial_number)


def chosen_devices(args: argparse.Namespace) -> list[Selector]:
    """Those of `groups.add_device` with `several`; ALL if all are meant. Raises LocalProtocolError."""
    if args.vid is None and args.pid is None and args.serial_number is None:
        return parse_selection(args.device)
    return [chosen_device(args)]


def resolved(server: ServerAddress, selector: Selector) -> Selector:
    """The device by its busid, where its serial number was given, for those who know none. Raises UsbipError."""
    return Selector(busid=server.find(selector).busid) if selector.serial else selector


@contextmanager
def recording(args: argparse.Namespace, servers: list[ServerAddress]) -> Iterator[PcapWriter | None]:
    """The capture that --pcap asks for, if it does, and the logs that --syslog asks for, until the end of the block.

    Raises CaptureError, also at the end: nobody should believe in a capture that is lost.
    """
    with ExitStack() as stack:
        writer: PcapWriter | None = None
        if args.pcap:
            from usbip_capture.capture.writer import PcapWriter

            with Waiting(f"opening {args.pcap}"):  # a named pipe waits for its reader
                writer = stack.enter_context(PcapWriter(args.pcap))
        if args.syslog:
            for server in servers:
                stack.enter_context(log_of(server, args.syslog_port, writer))
        yield writer


@contextmanager
def log_of(server: ServerAddress, port: int, writer: PcapWriter | None) -> Iterator[None]:
    """The device's log, on standard error and in the capture.

    Enters the block once connected, or after the first failed attempt.
    """
    import threading

    from usbip_capture.cli.log_handler import reported
    from usbip_capture.collector import SyslogReceiver
    from usbip_capture.collector.display import line

    def show(message: Message) -> None:
        print_log(line(message))

    receiver = SyslogReceiver(server.place[0], port, writer, callback=show, timeout=server.timeout)
    with reported("usbip_capture.collector") as log_handler:
        try:
            receiver.start()  # within: Ctrl-C may come before it has returned
            log_handler.printed.wait(server.timeout)
            yield
            threading.Event().wait(_LOG_LINGER)
        finally:
            receiver.stop()


@contextmanager
def imported(server: ServerAddress, selector: Selector, writer: PcapWriter | None) -> Iterator[Imported]:
    """The device of `server` that is meant, released at the end of the block. Raises UsbipError."""
    from usbip_capture.errors import DeviceError
    from usbip_capture.host.handle import DeviceHandle
    from usbip_capture.host.opened import OpenDevice
    from usbip_capture.tap import Tapped

    with problems_reported(server):
        remote = server.import_device(selector)
    try:
        device = remote if writer is None else Tapped(remote, writer.add_usb_interface(remote.info, server=str(server)))
        handle = DeviceHandle(device)
        handle.device_descriptor()  # a host's first request: a device that does not answer it can do nothing else
        yield Imported(server, remote, handle, OpenDevice(handle, device))
    except DeviceError as error:
        explained = _explained(error, remote)
        if explained is error:
            raise
        raise explained from error
    finally:
        remote.close()


@contextmanager
def problems_reported(server: ServerAddress | None) -> Iterator[None]:
    """What of a device of this machine cannot be had, and who has it, goes to standard error."""
    if server is None or server.host != LOCAL:
        yield
        return
    from usbip_capture.cli.log_handler import reported

    with reported("usbip_capture.devices.libusb"), reported("usbip_capture.servers.local"):
        yield


def remember(server: ServerAddress, remote: Device, product: str, serial: str = "") -> None:
    """Have the next list show what the device calls itself, and its serial number."""
    if not server.is_built_in:
        from usbip_capture.servers import memory

        info = remote.info
        memory.remember_server(*server.place)
        memory.remember_product(*server.place, info.busid, "{:04x}:{:04x}".format(*info.vid_pid), product, serial)


def _explained(error: DeviceError, remote: Device) -> Exception:
    """A sentence with what to try, where the error has none."""
    from usbip_capture.errors import ServerLost, TransferFailed, TransferTimeout, UsbipError
    from usbip_capture.usb.status import EPIPE

    if remote.loss:
        return ServerLost(remote.loss)
    if not isinstance(error, TransferFailed):
        return error
    if isinstance(error, TransferTimeout):
        advice = "try a longer --transfer-timeout, or check that the device sends on this endpoint"
        if not error.endpoint:
            advice = "the device may not know this request, or need more time"
    elif error.status == -EPIPE:
        why = (
            "has halted this endpoint" if error.endpoint else "does not support this request, or not with these values"
        )
        advice = f"the device {why}"
    else:
        return error
    return UsbipError(f"{error}: {advice}")
