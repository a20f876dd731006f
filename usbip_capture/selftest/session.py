"""A self-test from the list of devices to the end, its results reported one by one."""

from __future__ import annotations

import time

import usb.core

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import ServerLost, TransferFailed, UsbipError
from usbip_capture.host.reimport import retry
from usbip_capture.pyusb_backend import backend_of
from usbip_capture.report.units import count
from usbip_capture.selftest.device_checks import DeviceChecks
from usbip_capture.selftest.raw import RawSession
from usbip_capture.selftest.results import Report, note, right, wrong
from usbip_capture.selftest.wire_checks import check_replies, check_rude, check_sizes, check_stall, check_unlink
from usbip_capture.servers.address import LOCAL, Selector, ServerAddress
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.setup import set_configuration
from usbip_capture.usb.status import EPROTO
from usbip_capture.usb.urb import DIR_IN, TransferType, Urb

#: Seconds that a device may be missing after it was released.
_MISSING = 5.0


class Selftest:
    """Tests `server` and the device that is meant; `pcap` captures all of it."""

    def __init__(
        self, server: ServerAddress, selector: Selector, report: Report, pcap: PcapWriter | None = None
    ) -> None:
        self._server = server
        self._selector = selector
        self._report = report
        self._pcap = pcap
        self._channel: UsbChannel | None = None

    def run(self) -> None:
        """Raises UsbipError when the server cannot be reached, or the device not be imported or read."""
        start = time.monotonic()
        devices = self._server.devices()
        milliseconds = (time.monotonic() - start) * 1000
        self._report(right("OP_REQ_DEVLIST", f"{count(len(devices), 'device')} in {milliseconds:.1f} ms"))
        info = self._server.find(self._selector)
        try:
            checks, configuration = self._through_pyusb(info)
        except (usb.core.USBError, NotImplementedError) as error:
            cause = error.__cause__
            text = str(getattr(error, "strerror", None) or error)
            raise UsbipError(f"the device cannot be tested: {text}") from (
                cause if isinstance(cause, UsbipError) else TransferFailed(text, -EPROTO)
            )
        if self._server.host == LOCAL:
            self._report(note("USB/IP", "not tried: there is no server between this program and the device"))
        else:
            self._on_the_wire(info, checks, configuration)

    def _through_pyusb(self, info: DeviceInfo) -> tuple[DeviceChecks, int]:
        with backend_of(self._server, [Selector(busid=info.busid)], self._pcap) as backend:
            dev = usb.core.find(backend=backend)
            if dev is None:
                raise ServerLost(f"device {info} of {self._server} was there and is gone: plug it in again")
            checks = DeviceChecks(dev)
            for result in checks.run():
                self._report(result)
            return checks, checks.configuration()

    def _on_the_wire(self, info: DeviceInfo, seen: DeviceChecks, configuration: int) -> None:
        start = time.monotonic()
        session = self._open(info)
        missing = time.monotonic() - start
        self._report((right if missing < 1 else note)("imported again", f"after {missing * 1000:.0f} ms"))
        idle = seen.idle
        bulk = next((e for e in idle if e.transfer_type == TransferType.BULK), None)
        quiet = next((e for e in idle if e.transfer_type == TransferType.INTERRUPT), bulk)
        with session:
            try:
                session.answer(Urb.control(set_configuration(configuration).pack()), _MISSING)
                for checks in (
                    check_replies(session),
                    check_stall(session),
                    check_unlink(session, quiet),
                    check_sizes(session, bulk),
                ):
                    for result in checks:
                        self._report(result)
            except ServerLost as error:
                self._report(wrong("the connection", str(error)))
        missing = next((number for number in range(15, 0, -1) if number not in seen.numbers), 0)
        for result in check_rude(lambda: self._open(info), missing | DIR_IN):
            self._report(result)

    def _open(self, info: DeviceInfo) -> RawSession:
        """As soon as the server exports the device again."""
        if self._pcap is not None and self._channel is None:
            self._channel = self._pcap.add_usb_interface(info, server=str(self._server))
        return retry(lambda: RawSession(self._server, info.busid, self._channel), _MISSING)
