"""Serial devices of a server, spoken to directly: for programs that know neither pyserial nor ports."""

from usbip_capture.serial_port.client.client import SerialClient
from usbip_capture.serial_port.client.connection import SerialConnection

__all__ = ["SerialClient", "SerialConnection"]
