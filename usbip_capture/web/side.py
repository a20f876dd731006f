"""What the web side is made of: everything that a request asks, it asks here."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from usbip_capture.web.confirming import Confirmations

if TYPE_CHECKING:
    from usbip_capture.serving.local_server import LocalServer
    from usbip_capture.serving.restarting import Restart


@dataclass(slots=True)
class WebSide:
    """server: whose dashboard it is. restart: starts it again, None where it is not ours to start."""

    server: LocalServer
    restart: Restart | None = None
    confirmations: Confirmations = field(default_factory=Confirmations)
    started: float = field(default_factory=time.time)
