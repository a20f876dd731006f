"""A host for one serial port, as small as can be: the driver's requests done one after the other on a Device."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from usbip_capture.device import Device, Transfer
from usbip_capture.uart.driver import Driver, Request
from usbip_capture.uart.ports import find_ports
from usbip_capture.uart.settings import LineSettings
from usbip_capture.usb import setup as requests
from usbip_capture.usb.descriptors import DeviceDescriptor, parse_configuration
from usbip_capture.usb.status import EPIPE, UNLINKED
from usbip_capture.usb.urb import Completion, Urb

TIMEOUT = 30.0
READ = 4096


class SerialHost:
    """An open port. `settings` are those that were applied last."""

    def __init__(self, device: Device, interface: int | None = None, settings: LineSettings | None = None) -> None:
        self.device = device
        descriptor = DeviceDescriptor.parse(self._descriptor(requests.DT_DEVICE, 18))
        raw = self._descriptor(requests.DT_CONFIGURATION, 4096)
        configuration = parse_configuration(raw)
        self.control(Request(requests.set_configuration(configuration.bConfigurationValue)))
        ports = find_ports(descriptor, configuration, device.info.speed)
        (self.port,) = [p for p in ports if interface in (None, p.interface)][:1]
        self.driver: Driver = self.port.driver()
        self.settings = settings or LineSettings(115200)
        self.do(self.driver.identify())
        self.do(self.driver.open())
        self.do(self.driver.apply(None, self.settings))
        self.do(self.driver.set_lines(True, True))
        self.poll()

    def do(self, wanted: Sequence[Request]) -> None:
        for request in wanted:
            data = self.control(request)
            if request.reads:
                self.driver.answered(request, data)

    def control(self, request: Request) -> bytes:
        completion = self.device.run(Urb.control(request.setup.pack(), request.data), TIMEOUT)
        if completion.status == -EPIPE and request.optional:
            return b""
        assert not completion.status, f"{request} failed: {completion}"
        return bytes(completion.data)

    def apply(self, settings: LineSettings) -> None:
        self.do(self.driver.apply(self.settings, settings))
        self.settings = settings

    def poll(self) -> None:
        self.do(self.driver.poll())

    def write(self, data: bytes, timeout: float = TIMEOUT) -> Completion:
        out = self.port.pipes.bulk_out
        return self.device.run(Urb(out.transfer_type, out.address, len(data), data), timeout)

    def read_once(self, timeout: float = TIMEOUT) -> bytes:
        """What one transfer brings; nothing within `timeout` seconds is nothing."""
        into = self.port.pipes.bulk_in
        completion = self.device.run(Urb(into.transfer_type, into.address, READ), timeout)
        assert completion.status in (0, *UNLINKED), completion
        return self.driver.received(bytes(completion.data))

    def read(self, size: int) -> bytes:
        """At least `size` bytes, however many transfers that takes."""
        data = b""
        for _ in range(1000):
            if len(data) >= size:
                break
            data += self.read_once()
        return data

    def echo(self, data: bytes, chunk: int, reads: int = 4, window: int = 96 << 10, timeout: float = 60.0) -> bytes:
        """Write `data` in chunks while several reads are in flight: what came back.

        window: bytes that are on their way at most, for there are far ends that stop when they hold too much.
        timeout: seconds without anything coming back.
        """
        pipe, got, news = self.port.pipes.bulk_in, bytearray(), threading.Condition()
        flying: deque[Transfer] = deque()
        failed: list[Completion] = []

        def start() -> None:
            flying.append(Transfer(Urb(pipe.transfer_type, pipe.address, READ), came, awaited=False))
            self.device.submit(flying[-1])

        def came(completion: Completion) -> None:
            with news:
                got.extend(self.driver.received(bytes(completion.data)))
                failed.extend([completion] if completion.status else [])
                news.notify()
            if not completion.status and len(got) < len(data):
                start()

        def wait_for(size: int) -> bool:
            with news:
                while len(got) < size and not failed:
                    if not news.wait(timeout):
                        return False
            return not failed

        for _ in range(reads):
            start()
        for at in range(0, len(data), chunk):
            if not wait_for(at + chunk - window):
                break
            assert not self.write(data[at : at + chunk], timeout).status
        wait_for(len(data))
        for transfer in flying:
            self.device.cancel(transfer)
        return bytes(got)

    def notice(self, timeout: float = TIMEOUT) -> None:
        """Take one notification."""
        pipe = self.port.pipes.notify
        assert pipe is not None
        completion = self.device.run(Urb(pipe.transfer_type, pipe.address, pipe.packet_size), timeout)
        self.driver.notified(bytes(completion.data))

    def _descriptor(self, kind: int, length: int) -> bytes:
        return self.control(Request(requests.get_descriptor(kind, 0, 0, length)))
