"""`SerialClient`: the serial devices of one server."""

from __future__ import annotations

from dataclasses import replace

from usbip_capture.capture.span import check_offer
from usbip_capture.errors import DeviceNotFound
from usbip_capture.net.address import DEFAULT_PORT
from usbip_capture.serial_port.client.connection import SerialConnection
from usbip_capture.serial_port.url import PortUrl
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.uart.settings import LineSettings
from usbip_capture.usb.info import DeviceInfo


class SerialClient:
    """Attaches serial devices of `host`, which may have a port of its own; `demo` is the built-in device.

    timeout: seconds for each connection. pcap: the file to capture all devices into.
    reconnect: seconds to wait for a device that is lost, which then goes on by itself; 0: call `restore`.
    offer: list this program in Wireshark, which can capture what it does with the devices; hindsight: what is kept for
    that of each device, such as `30s,16MiB`.
    Raises LocalProtocolError for what is not a server.
    """

    def __init__(
        self,
        host: str,
        port: int = DEFAULT_PORT,
        *,
        timeout: float = 5.0,
        pcap: str = "",
        reconnect: float = 0.0,
        offer: bool = False,
        hindsight: str = "",
    ) -> None:
        self.server = ServerAddress.parse(host, port, timeout)
        self.connections: list[SerialConnection] = []
        self._pcap = pcap
        self._reconnect = reconnect
        self._offer, self._hindsight = offer, hindsight
        check_offer(offer, hindsight)

    def devices(self) -> list[DeviceInfo]:
        """What the server exports now, serial or not; many servers leave out devices in use. Raises UsbipError."""
        return self.server.devices()

    def attach(
        self,
        device: str = "",
        *,
        serial: str = "",
        instance: int | None = None,
        interface: int | None = None,
        settings: LineSettings | None = None,
    ) -> SerialConnection:
        """The device with this busid or VID:PID and this serial number; nothing: the only one there is.

        instance: which of several that fit, from 0 in the order of their busids. interface: bInterfaceNumber, of a
        device with several ports. settings: of the line, else 9600 baud, 8N1. Raises UsbipError.
        """
        url = PortUrl(
            self.server,
            Selector.parse(device),
            serial,
            interface,
            instance,
            self._pcap,
            reconnect=self._reconnect,
            offer=self._offer,
            hindsight=self._hindsight,
        )
        return self._open(url, settings)

    def attach_all(self, device: str = "", *, settings: LineSettings | None = None) -> list[SerialConnection]:
        """All devices that this busid or VID:PID means, in the order of their busids; none or all are attached.

        Raises UsbipError, DeviceNotFound if there is none.
        """
        selector = Selector.parse(device)
        if selector.serial:
            return [self.attach(device, settings=settings)]
        found = sorted(
            (info for info in self.devices() if selector.matches(info)), key=lambda info: (len(info.busid), info.busid)
        )
        if not found:
            raise DeviceNotFound(f"{self.server.offers} no free device {device}".rstrip())
        attached: list[SerialConnection] = []
        url = PortUrl(
            self.server,
            selector,
            pcap=self._pcap,
            reconnect=self._reconnect,
            offer=self._offer,
            hindsight=self._hindsight,
        )
        try:
            for info in found:
                attached.append(self._open(replace(url, selector=Selector(busid=info.busid)), settings))
        except BaseException:
            for connection in attached:
                connection.close()
            raise
        return attached

    def close(self) -> None:
        """Release all devices."""
        for connection in list(self.connections):
            connection.close()

    def __enter__(self) -> SerialClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, url: PortUrl, settings: LineSettings | None) -> SerialConnection:
        connection = SerialConnection(url, settings or LineSettings(), self._closed)
        self.connections.append(connection)
        return connection

    def _closed(self, connection: SerialConnection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
