"""Every error that this package raises on purpose, and whose fault it is.

The message of each is one sentence for a person: what failed, which device or
server, what to try.
"""

from __future__ import annotations


class UsbipError(Exception):
    """Anything that went wrong with a server, a device or a capture."""


class LocalProtocolError(UsbipError, ValueError):
    """Our caller asked for something that USB or USB/IP does not allow."""


class FileFormatError(LocalProtocolError):
    """A file does not hold what it should. Its name comes first, then the line if there is one."""


class RemoteProtocolError(UsbipError):
    """The peer sent something that USB/IP does not allow: its connection cannot go on."""


class StrayReply(RemoteProtocolError):
    """A new connection began with the reply to a request of an earlier one: the next attempt may succeed."""


class ServerUnreachable(UsbipError):
    """No connection to the server: its name, its port, or the way there."""


class UntrustedServer(UsbipError):
    """The certificate of a server is not known, or not the one that is remembered. Nothing was sent to it.

    fingerprint: of the certificate that it has shown. known: the one that is remembered, empty if none is.
    """

    def __init__(self, message: str, host: str, port: int, found: str, known: str = "") -> None:
        super().__init__(message)
        self.host = host
        self.port = port
        self.fingerprint = found
        self.known = known


class ServerLost(UsbipError):
    """The connection to the server ended while it was in use."""


class NotRunning(UsbipError):
    """No server of this user runs on this machine, or none of the name that was given."""


class DeviceNotFound(UsbipError):
    """No device, or more than one, answers to what was asked for."""


class ImportRefused(UsbipError):
    """The server refuses to export the device. `status` is an OpStatus number."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class DeviceError(UsbipError):
    """What was asked of a device in use has failed. `status` is a URB status, or what Linux's usbfs would answer."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class TransferFailed(DeviceError):
    """A transfer has failed. `endpoint` is its address, 0 for control transfers."""

    def __init__(self, message: str, status: int, endpoint: int = 0) -> None:
        super().__init__(message, status)
        self.endpoint = endpoint


class TransferTimeout(TransferFailed):
    """A transfer has run out of time. `seconds`: the time that it had; None if the server had a time-out of its own."""

    def __init__(self, message: str, status: int, endpoint: int = 0, seconds: float | None = None) -> None:
        super().__init__(message, status, endpoint)
        self.seconds = seconds


class RequestRefused(DeviceError):
    """Not sent: the device has no such endpoint, interface or configuration, or it is claimed, or out of range."""


class DeviceGone(DeviceError):
    """The device is not there any more. `released`: this program itself has released it."""

    def __init__(self, message: str, status: int, *, released: bool = False) -> None:
        super().__init__(message, status)
        self.released = released


class CaptureError(UsbipError):
    """The capture cannot be written where it was asked for."""


class CannotListen(UsbipError):
    """Nobody can connect to us there: the port is in use, the address is not ours, or the system has no more."""


class ResponseTimeout(UsbipError):
    """A device has not answered in time. `partial` is what came of its answer."""

    def __init__(self, message: str, partial: bytes = b"") -> None:
        super().__init__(message)
        self.partial = partial


class NoVhci(UsbipError):
    """This machine's kernel cannot attach devices: no vhci-hcd, no right to use it, or another system than Linux."""


class CannotAttach(UsbipError):
    """A device cannot be attached or detached now: no port is free, nothing is attached there, the kernel refuses."""
