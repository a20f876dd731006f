"""What the web side is made of: everything that a request asks, it asks here."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from usbip_capture.web.confirming import Confirmations
from usbip_capture.web.tokens import Tokens

if TYPE_CHECKING:
    from usbip_capture.serving.local_server import LocalServer
    from usbip_capture.serving.restarting import Restart
    from usbip_capture.web.event_feed import EventFeed
    from usbip_capture.web.sign_in import SignIn


@dataclass(slots=True)
class WebSide:
    """server: whose dashboard it is. sign_in, feed: None until it is opened.

    restart: starts the server again, None where it is not ours to start. started: when it did, in seconds since 1970.
    """

    server: LocalServer
    tokens: Tokens = field(default_factory=Tokens)
    sign_in: SignIn | None = None
    feed: EventFeed | None = None
    restart: Restart | None = None
    confirmations: Confirmations = field(default_factory=Confirmations)
    started: float = field(default_factory=time.time)
