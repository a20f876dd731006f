"""`--auto`: a device stays attached: again whenever it is plugged in, or its server is there again."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from usbip_capture.errors import CannotAttach, LocalProtocolError, NoVhci, UsbipError
from usbip_capture.servers import refresher
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.vhci.attaching import Attacher, Attachment

if TYPE_CHECKING:
    from usbip_capture.servers.mdns import DiscoveredServer

#: Seconds between two looks whether it is still attached, and between attempts: the first, and the longest.
_LOOK_AGAIN, _FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 1.0, 10.0
#: Seconds that a device must have been attached for the pauses to begin anew.
_LASTING = 10.0


class AutoAttach:
    """Keeps one device attached, until `stop` or until somebody detaches it on this machine.

    report: called with each attachment and loss, and with why none is possible now, once for each reason.
    attachment: what is attached now; it stays so after the end.
    """

    def __init__(
        self, attacher: Attacher, server: ServerAddress, selector: Selector, report: Callable[[str], None]
    ) -> None:
        self.attachment: Attachment | None = None
        self._attacher = attacher
        self._server = server
        self._selector = selector
        self._report = report
        self._changed = threading.Condition()
        self._stopped = False
        self._woken = False
        self._reason = ""
        self._pause = _FIRST_PAUSE

    def stop(self) -> None:
        """Have `run` return soon, from any thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wake(self) -> None:
        """Have the next attempt made within a second: the server may be there again."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def run(self) -> None:
        """Attach, watch, attach again. Raises NoVhci and LocalProtocolError: what no waiting mends."""
        while not self._stopped:
            if (attachment := self._attach()) is not None:
                attached_at = time.monotonic()
                if not self._watch(attachment):
                    return
                self.attachment = None
                if self._attacher.was_detached_here(attachment):
                    self._report(f"{attachment.where} was detached on this machine: it is not attached again")
                    return
                self._attacher.forget(attachment)
                self._report(f"{attachment.where} was lost (unplugged, or its server has ended): waiting for it")
                if time.monotonic() - attached_at >= _LASTING:
                    self._pause = _FIRST_PAUSE
            self._wait_to_try_again()

    def _attach(self) -> Attachment | None:
        """None if it is not possible now; why is reported, unless it was."""
        self._woken = False
        try:
            attachment = self.attachment = self._attacher.attach(self._server, self._selector)
        except (LocalProtocolError, NoVhci):
            raise
        except UsbipError as error:
            if str(error) != self._reason:
                self._reason = str(error)
                self._report(f"{error}: waiting" if not isinstance(error, CannotAttach) else str(error))
            return None
        self._reason = ""
        self._report(sentence(attachment))
        return attachment

    def _watch(self, attachment: Attachment) -> bool:
        """Whether it was lost; False if we were stopped."""
        while self._attacher.is_attached(attachment):
            with self._changed:
                if not self._stopped:
                    self._changed.wait(_LOOK_AGAIN)
                if self._stopped:
                    return False
        return True

    def _wait_to_try_again(self) -> None:
        """Longer each time; shorter when woken, but never less than the first pause."""
        started = time.monotonic()
        deadline = started + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        with self._changed:
            while not self._stopped and (left := deadline - time.monotonic()) > 0:
                if self._woken:
                    self._woken, self._pause = False, _FIRST_PAUSE
                    deadline = min(deadline, max(started + _FIRST_PAUSE, time.monotonic()))
                    continue
                self._changed.wait(left)


def sentence(attachment: Attachment) -> str:
    """That a device is attached, and where."""
    port = attachment.port
    if not port.local_busid:
        return (
            f"{attachment.where} is attached at port {port.number}; the kernel has not enumerated it yet: see its log"
            " (dmesg)"
        )
    return f"{attachment.where} is attached at port {port.number}, as {port.local_busid}"


@contextlib.contextmanager
def announcements(server: ServerAddress, wake: Callable[[], None]) -> Iterator[None]:
    """During the block `wake` is called when a server on this port announces itself, or what it exports now.

    Any host's: an address may be another name of the one that is meant. Without a network for it, or where looking for
    servers is switched off, it never is.
    """
    from usbip_capture.servers.mdns import browsing

    def on_found(found: DiscoveredServer) -> None:
        if server.port in [port for _, port in found.places]:
            wake()

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(UsbipError):
            if not refresher.is_off():
                stack.enter_context(browsing(on_found))
        yield
