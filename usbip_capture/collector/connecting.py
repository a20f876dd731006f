"""Gets the log from a device that offers it on a TCP port, and connects again whenever that ends."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable

from usbip_capture.collector.delivery import Delivery
from usbip_capture.collector.sender import Sender, flow_of
from usbip_capture.errors import ServerUnreachable, UsbipError
from usbip_capture.net import connecting as net
from usbip_capture.servers.address import DEMO, LOCAL
from usbip_capture.servers.recording_host import REPLAY

log = logging.getLogger(__name__)

#: Under a flood of messages, other threads get their turn between two reads: so little at a time, and a pause of such a
#: part of the time that it took.
RECEIVE_SIZE = 32 << 10
PAUSE = 0.25
#: Seconds after a read of all there was: what comes meanwhile is handled together.
GAP = 0.002
#: Seconds before the second attempt, and at most; each wait is twice as long as the one before.
FIRST_RETRY, LAST_RETRY = 0.25, 10.0
#: Seconds that `start` waits for a device that answers at once: what it logs from then on is not missed.
_START_TIMEOUT = 0.3
#: Seconds that `stop` waits for a thread that is looking for the device, and for one that reads.
_LOOKING_TIMEOUT, _READING_TIMEOUT = 0.2, 1.0
#: Seconds for what has arrived already when `stop` is called.
DRAIN_TIME = 0.3


class ConnectingCollector:
    """Reads from `host`, on a thread of its own; `demo` is the built-in device.

    timeout: seconds for each attempt to connect. comment: called, for the capture, when the log is missing, lost, and
    back.
    """

    def __init__(
        self, host: str, port: int, timeout: float, delivery: Delivery, comment: Callable[[str], None]
    ) -> None:
        self._host = host
        self._port = port
        self._timeout = timeout
        self._delivery = delivery
        self._comment = comment
        self._stopping = threading.Event()
        self._drained_by = 0.0
        self._tried = threading.Event()
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="usbip-log", daemon=True)

    def start(self) -> None:
        """Begin. Returns when it is connected, or soon; a device that is not there yet is waited for."""
        self._thread.start()
        self._tried.wait(_START_TIMEOUT)

    def stop(self) -> None:
        """End the connection; what came before is delivered when this returns."""
        with self._lock:
            self._drained_by = time.monotonic() + DRAIN_TIME
            self._stopping.set()
            reading = self._sock is not None
            if self._sock is not None:
                _shut_down(self._sock)  # what has arrived can still be read
        if self._thread is not threading.current_thread():
            self._thread.join(_READING_TIMEOUT if reading else _LOOKING_TIMEOUT)

    def _run(self) -> None:
        retry, reported, missing = FIRST_RETRY, "", ""
        while not self._stopping.is_set():
            reason, got = self._once(missing)
            self._tried.set()
            if self._stopping.is_set():
                break
            retry = FIRST_RETRY if got else retry
            if got or reason != reported:
                log.warning("no log of %s now, trying again until it is there: %s", self._host, reason)
                state = f"the log of {self._host} is lost" if got else f"cannot reach the log of {self._host} yet"
                self._comment(f"usbip-capture: {state}, still trying: {reason}")
                reported, missing = reason, "back" if got or missing == "back" else "there"
            self._stopping.wait(retry)
            retry = min(2 * retry, LAST_RETRY)

    def _once(self, missing: str) -> tuple[str, bool]:
        """One connection: why it ended, and whether anything came. missing: what the log is when it was not before."""
        try:
            sock = self._connect()
        except UsbipError as error:
            return str(error), False
        with sock:
            with self._lock:
                if self._stopping.is_set():
                    return "", False
                self._sock = sock
            got = False
            try:
                sender = Sender(flow_of(sock))
                self._delivery.counts.connections += 1
                log.info("reading the log of %s", self._host)
                self._tried.set()
                while data := sock.recv(RECEIVE_SIZE):
                    if missing and not got:  # not before: a device that serves others only takes us and hangs up
                        self._comment(f"usbip-capture: the log of {self._host} is {missing}")
                    got = True
                    begun = time.perf_counter()
                    self._delivery.deliver(sender, sender.received(data, time.time_ns()))
                    is_all = len(data) < RECEIVE_SIZE
                    pause = GAP if is_all else PAUSE * (time.perf_counter() - begun)
                    if self._stopping.wait(pause) and time.monotonic() >= self._drained_by:
                        break
                reason = "the device closed the connection"
            except OSError as error:
                reason = f"the connection broke ({error.strerror or error})"
            except Exception as error:  # the log ends here, what else is captured does not
                log.exception("a message of the log failed")
                reason = f"internal error: {error!r}"
                self._delivery.counts.own_faults += 1
            with self._lock:
                self._sock = None
            if got:
                self._delivery.deliver(sender, sender.ended(time.time_ns()))
                self._delivery.counts.add(sender.framer)
        return reason, got

    def _connect(self) -> socket.socket:
        if self._host == DEMO:
            from usbip_capture.demo.device import connect_demo_log

            return connect_demo_log()
        if self._host == LOCAL:
            raise ServerUnreachable("devices of this machine have no log of their own: name the host that has it")
        if self._host.startswith(REPLAY):
            raise ServerUnreachable("a recording has no log to connect to: name the host that has it")
        sock = net.connect(self._host, self._port, self._timeout, "a log server")
        sock.settimeout(None)
        return sock


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was quicker
        pass
