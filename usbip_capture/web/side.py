"""What the web side is made of: everything that a request asks, it asks here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usbip_capture.serving.local_server import LocalServer


@dataclass(slots=True)
class WebSide:
    """server: whose dashboard it is."""

    server: LocalServer
