"""`SyslogReceiver`: the log of a device, beside the capture of its USB traffic."""

from __future__ import annotations

import atexit
import os
import ssl
from collections.abc import Callable, Iterator
from typing import BinaryIO

from usbip_capture.capture.log_target import LogCapture
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.collector.connecting import ConnectingCollector
from usbip_capture.collector.counts import Counts
from usbip_capture.collector.delivery import Delivery
from usbip_capture.collector.listen_addresses import TLS, ListenAddress, parse_listen_addresses
from usbip_capture.collector.listening import ListeningCollector
from usbip_capture.errors import LocalProtocolError
from usbip_capture.servers.address import ServerAddress
from usbip_capture.syslog import LOG_PORT
from usbip_capture.syslog.message import Message
from usbip_capture.syslog.severity import SEVERITIES


class SyslogReceiver:
    """Reads the log that `host` offers on a TCP port, until stopped; `demo` is the built-in device.

    pcap: where messages are captured, on the interface `syslog0`: a PcapWriter or what can do the same for a log, which
    stays yours to close, or a path or a stream, for a capture that `stop` completes.
    callback: called with each Message, on the receiver's thread. Without one, iterate over the receiver: messages wait
    for you then, at most 4096 of them, and 16 MiB.
    listen: instead of reading from `host`, wait at these addresses for devices that send: see `parse_listen_addresses`.
    certificate: PEM file with the certificate and its key, for addresses of TLS.
    min_severity: leave out what is less severe, such as `warning`.
    align_clock: in the capture, a message has the time at which the device made it, as far as the smallest delay seen
    shows it, and a comment notes that; else the time of its arrival.
    timeout: seconds for each attempt to connect.
    ends_with_capture: the iteration ends when the capture that this has opened does, as nobody reads it any more or it
    cannot be written; else messages go on coming.

    A receiver that is not stopped is stopped when Python ends. Raises LocalProtocolError for what cannot be meant, and
    CaptureError when the capture cannot be written.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int = LOG_PORT,
        pcap: LogCapture | str | os.PathLike[str] | BinaryIO | None = None,
        *,
        callback: Callable[[Message], object] | None = None,
        listen: str | None = None,
        certificate: str = "",
        min_severity: str = "debug",
        align_clock: bool = False,
        timeout: float = 5.0,
        ends_with_capture: bool = False,
    ) -> None:
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be a function of one message, not {callback!r}")
        if (host is None) == (listen is None):
            raise LocalProtocolError("a log comes from a host or by listening: give one of both")
        if min_severity not in SEVERITIES:
            raise LocalProtocolError(f"{min_severity!r} is not a severity: give one of {', '.join(SEVERITIES)}")
        self._server = None if host is None else ServerAddress.parse(host, port, timeout)
        if self._server is not None and self._server.scheme:
            raise LocalProtocolError(
                f"the log of {self._server.host} is read by TCP only, not through {self._server.scheme}: forward its "
                f"port with ssh -N -L {port}:127.0.0.1:{port}, and read it from 127.0.0.1"
            )
        self._listen_addresses = [] if listen is None else parse_listen_addresses(listen, port)
        self._tls = _tls_context(certificate) if any(a.transport == TLS for a in self._listen_addresses) else None
        self._delivery = Delivery(callback, SEVERITIES.index(min_severity), align_clock)
        self._align = align_clock
        self._ends_with_capture = ends_with_capture
        self._own: PcapWriter | None = None
        self._pcap: LogCapture | None
        if pcap is None or isinstance(pcap, LogCapture):
            self._pcap = pcap
        else:
            self._pcap = self._own = PcapWriter(pcap, on_end=self._capture_ended)
        self._collector: ConnectingCollector | ListeningCollector | None = None
        self._stopped = False

    @property
    def counts(self) -> Counts:
        """What has come so far; flaws of a connection are counted at its end."""
        return self._delivery.counts

    @property
    def bound(self) -> list[ListenAddress]:
        """Where it listens, with the ports that were chosen for port 0."""
        return self._collector.bound if isinstance(self._collector, ListeningCollector) else []

    @property
    def capture_failed(self) -> bool:
        """Whether the capture cannot be written any more; messages go on coming."""
        return self._pcap is not None and self._pcap.error is not None

    def start(self) -> None:
        """Begin. Raises CannotListen if it cannot listen; a device that cannot be reached yet is waited for."""
        if self._collector is not None or self._stopped:
            return
        server = self._server
        collector: ConnectingCollector | ListeningCollector
        if server is None:
            collector = ListeningCollector(self._listen_addresses, self._tls, self._delivery)
        else:
            comment = self._pcap.comment if self._pcap is not None else _no_comment
            collector = ConnectingCollector(server.host, server.port, server.timeout, self._delivery, comment)
        if self._pcap is not None:
            self._delivery.channel = self._pcap.add_log_interface(self._description())
        self._collector = collector
        atexit.register(self.stop)
        collector.start()

    def stop(self) -> None:
        """End; what came before is delivered when this returns. May be called again, and without `start`.

        Raises CaptureError if a capture that this has opened could not be written.
        """
        if self._stopped:
            return
        self._stopped = True
        atexit.unregister(self.stop)
        if self._collector is not None:
            self._collector.stop()
        self._delivery.end()
        if self._delivery.channel is not None and (flaws := self.counts.flaws()):
            self._delivery.channel.note(f"usbip-capture: messages of the log: {', '.join(flaws)}")
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> SyslogReceiver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Message]:
        """Messages as they come, until stopped."""
        return iter(self._delivery)

    def _capture_ended(self, reason: str) -> None:
        if self._ends_with_capture:
            self._delivery.end()

    def _description(self) -> str:
        listen = ", ".join(map(str, self._listen_addresses))
        where = f"log of {self._server}" if self._server else f"listening on {listen}"
        return f"syslog, {where}" + ("; times by the device's clock, aligned" if self._align else "")


def _tls_context(certificate: str) -> ssl.SSLContext:
    """For a server with this certificate. Raises LocalProtocolError."""
    if not certificate:
        raise LocalProtocolError("listening for TLS needs a certificate: name a PEM file with it and its key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, password=_no_password)
    except (OSError, ValueError) as error:
        known = isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError))
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) and known else "no certificate with key"
        raise LocalProtocolError(
            f"the certificate {certificate} cannot be used ({reason}): name a PEM file that holds it and its key, "
            "without a password"
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("it has a password")


def _no_comment(text: str) -> None:
    """There is no capture to comment on."""
