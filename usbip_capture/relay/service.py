"""A relay that others of its user can join: listed as an interface of Wireshark, captured by whoever likes, stopped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from usbip_capture.access.limits import Limits
from usbip_capture.access.rules import AccessRules
from usbip_capture.capture.span import Span
from usbip_capture.capture.writer import PcapWriter
from usbip_capture.errors import UsbipError
from usbip_capture.live.local_channel import LocalChannel
from usbip_capture.live.messages import Message
from usbip_capture.live.serving import Source
from usbip_capture.net.networks import Network
from usbip_capture.relay.captures import RelayCapture
from usbip_capture.relay.relay import Relay
from usbip_capture.servers.address import ServerAddress
from usbip_capture.system.latch import Latch
from usbip_capture.system.shown import one_line

log = logging.getLogger(__name__)

#: Its name as an interface of Wireshark begins so; the port follows.
PREFIX = "usbip-relay-"
#: Seconds without clients and captures after which a relay ends that lives for them only.
LINGER = 3.0
#: Seconds that are worth waiting for the server's list of devices.
LIST_TIMEOUT = 1.0
_LOOK = 0.2


class RelayService(Source):
    """A Relay and its LocalChannel. Raises UsbipError as these do.

    listed: the server has answered what it exports, or cannot.
    """

    def __init__(
        self,
        server: ServerAddress,
        address: str,
        port: int,
        allow: Sequence[Network] = (),
        rules: AccessRules | None = None,
        limits: Limits | None = None,
        keeps: Span | None = None,
    ) -> None:
        self.listed = threading.Event()
        self._stopping = Latch()  # which `stop` sets in signal handlers
        self.relay = Relay(server, address, port, allow=allow, rules=rules, limits=limits, keeps=keeps)
        where = self.relay.listening
        place = f"[{self.relay.address}]" if ":" in self.relay.address else self.relay.address
        try:
            self.channel = LocalChannel(
                self, f"{PREFIX}{self.relay.port}", f"USB/IP relay: {server} at {place}:{self.relay.port}",
                server=str(server), listen=where,
            )  # fmt: skip
        except UsbipError:
            self.relay.close()
            raise
        try:
            threading.Thread(target=self._ask_server, name="usbip-relay-list", daemon=True).start()
        except RuntimeError as error:  # this system has no thread left
            log.warning("%s is not asked what it exports: %s", server, error)
            self.listed.set()

    def close(self) -> None:
        """End it: connections are reset, captures completed. May be called again."""
        self._stopping.set()
        self.relay.close()
        self.channel.close()

    def wait_unused(self, stopping: Latch | None = None) -> None:
        """Until nobody has been connected and nothing captured for LINGER seconds, or it is stopped."""
        unused_since = time.monotonic()
        while not self._waited() and not (stopping is not None and stopping.is_set()):
            if self.relay.busy or self.channel.captures:
                unused_since = time.monotonic()
            elif time.monotonic() - unused_since >= LINGER:
                return

    @property
    def stopped(self) -> bool:
        """Whether it is to end."""
        return self._stopping.is_set() or self.relay.ended

    def wait_stopped(self) -> None:
        """Until it is to end."""
        while not self._waited():  # a signal handler runs only between two waits
            pass

    def _waited(self) -> bool:
        """A moment later, or sooner: whether it is to end."""
        self._stopping.wait(_LOOK)
        return self.stopped

    # -- as the channel asks

    def begin(self, writer: PcapWriter) -> RelayCapture:
        """Capture into `writer`."""
        relay = self.relay
        self.listed.wait(LIST_TIMEOUT)  # the hint is better with it
        writer.comment(f"usbip-capture: relay to {relay.server} at {relay.listening}; {relay.hint}")
        return relay.capture(writer)

    def end(self, capture: object) -> None:
        """Capture no more."""
        if isinstance(capture, RelayCapture):
            self.relay.end_capture(capture)

    def state(self) -> Message:
        """Clients, with their devices; how to attach."""
        clients = [
            {"number": client.number, "peer": client.peer, "device": client.device, "urbs": client.urbs}
            for client in self.relay.clients
        ]
        return {"clients": clients, "hint": self.relay.hint, "server": str(self.relay.server)}

    def drop(self, number: int) -> None:
        """Break off a client."""
        self.relay.drop(number)

    def stop(self) -> None:
        """Have `wait_unused` and `wait_stopped` return."""
        self._stopping.set()

    def _ask_server(self) -> None:
        """What it exports, for the hint; nothing depends on it."""
        try:
            self.relay.busids = [info.busid for info in self.relay.server.devices()]
        except (UsbipError, OSError) as error:
            log.warning("%s; clients are disconnected until that has changed", one_line(str(error)))
        finally:
            self.listed.set()
