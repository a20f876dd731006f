"""What a running server does when it is asked to pair with a client, to know one no more, or whom it knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from usbip_capture.errors import UsbipError
from usbip_capture.live.messages import Message, text
from usbip_capture.net.address import format_address

if TYPE_CHECKING:
    from usbip_capture.serving.tls_side import TlsSide


def pairing_handlers(tls: TlsSide | None) -> Mapping[str, Callable[[Message], Message]]:
    """The requests by name, as those of `control`. tls: None where it does not listen for TLS."""

    def offer(request: Message) -> Message:
        if tls is None:
            raise UsbipError("this server does not listen for TLS: start it with --tls")
        name = text(request, "name")
        code, seconds = tls.pairing.offer(name)
        return {"code": code, "seconds": seconds, "name": name, **tls_status(tls)}

    def paired() -> Message:
        from usbip_capture.tls.paired_clients import read_paired_clients

        clients = read_paired_clients().values() if tls is None else tls.pairing.clients
        return {"clients": [{"name": one.name, "fingerprint": one.fingerprint, "since": one.since} for one in clients]}

    def unpair(request: Message) -> Message:
        from usbip_capture.tls.paired_clients import remove_paired_client

        remove = remove_paired_client if tls is None else tls.pairing.remove
        remove(text(request, "name"))
        return {}

    return {"pair-offer": offer, "paired": lambda request: paired(), "unpair": unpair}


def tls_status(tls: TlsSide | None) -> Message:
    """Where it listens for TLS, and its certificate; nothing where it does not."""
    if tls is None:
        return {}
    return {"tls": [format_address(*place) for place in tls.addresses], "fingerprint": tls.fingerprint}
