"""What a running server does when it is asked to reserve a device, to release it, or who has reserved what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from usbip_capture.access.clients import LOCAL
from usbip_capture.errors import RemoteProtocolError
from usbip_capture.live.messages import Message, text
from usbip_capture.serving.leases import DeviceLeases
from usbip_capture.serving.ports import check_exported

if TYPE_CHECKING:
    from usbip_capture.access.leases import Turn
    from usbip_capture.lending.lender import Lender


def lease_handlers(leases: DeviceLeases, lender: Lender) -> Mapping[str, Callable[[Message], Message]]:
    """The requests by name, as those of `control`."""

    def reserve(request: Message) -> Message:
        busid, seconds = text(request, "busid"), request.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise RemoteProtocolError(f"seconds on the channel is {seconds!r}")
        check_exported(lender, busid)
        turn = leases.reserve(busid, seconds, text(request, "client") or LOCAL)
        return {"turn": _turn(turn), "turns": turns_of(leases, busid)}

    def release(request: Message) -> Message:
        busid = text(request, "busid")
        leases.release(busid, text(request, "client"))
        return {"turns": turns_of(leases, busid)}

    def listed() -> list[Message]:
        return [{"busid": busid, "turns": turns_of(leases, busid)} for busid in sorted(leases.busids())]

    return {"reserve": reserve, "release": release, "leases": lambda request: {"leases": listed()}}


def turns_of(leases: DeviceLeases, busid: str) -> list[Message]:
    """Who has reserved the device: the one whose turn it is, then who comes next."""
    return [_turn(turn) for turn in leases.turns(busid)]


def _turn(turn: Turn) -> Message:
    """begins, until: seconds since 1970."""
    return {"client": turn.holder, "begins": turn.begins, "until": turn.until}
