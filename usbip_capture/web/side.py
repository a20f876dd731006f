"""What the web side is made of: everything that a request asks, it asks here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from usbip_capture.web.tokens import Tokens

if TYPE_CHECKING:
    from usbip_capture.serving.local_server import LocalServer
    from usbip_capture.web.event_feed import EventFeed
    from usbip_capture.web.sign_in import SignIn


@dataclass(slots=True)
class WebSide:
    """server: whose dashboard it is. sign_in, feed: None until it is opened."""

    server: LocalServer
    tokens: Tokens = field(default_factory=Tokens)
    sign_in: SignIn | None = None
    feed: EventFeed | None = None
