"""What a running server does when it is asked about its dashboard: where it is, and who may sign in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from usbip_capture.errors import UsbipError
from usbip_capture.live.messages import Message, text

if TYPE_CHECKING:
    from usbip_capture.serving.fronts import Front


def dashboard_handlers(front: Callable[[], Front | None]) -> Mapping[str, Callable[[Message], Message]]:
    """The requests by name, as those of `control`. front: the dashboard, None where there is none."""

    def opened() -> Front:
        found = front()
        if found is None:
            raise UsbipError("this server has no dashboard: start it with --web")
        return found

    def add(request: Message) -> Message:
        name = text(request, "name")
        return {"name": name, "links": list(opened().add_token(name, text(request, "role")))}

    def remove(request: Message) -> Message:
        opened().remove_token(text(request, "name"))
        return {}

    return {
        "tokens": lambda request: {"tokens": list(opened().listed_tokens()), **dashboard_status(opened())},
        "token-add": add,
        "token-remove": remove,
    }


def dashboard_status(front: Front | None) -> Message:
    """Where it is; nothing where there is none."""
    return {} if front is None else {"web": list(front.urls)}
