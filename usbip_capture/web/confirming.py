"""What is asked twice: the first answer has a token, which the second request brings."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from usbip_capture.errors import LocalProtocolError

#: Seconds that a token is good for, and how many are at a time.
_LIFETIME, _MOST = 120.0, 64


class _Offer(NamedTuple):
    token: str
    until: float


class Confirmations:
    """Tokens, each good once, for one action of one user, for two minutes. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._offers: OrderedDict[tuple[str, str], _Offer] = OrderedDict()

    def offer(self, action: str, user: str) -> str:
        """A token for this action, in place of an earlier one."""
        offer = _Offer(secrets.token_urlsafe(16), self._clock() + _LIFETIME)
        with self._lock:
            self._offers.pop((action, user), None)
            self._offers[action, user] = offer
            while len(self._offers) > _MOST:
                self._offers.popitem(last=False)
        return offer.token

    def check(self, action: str, user: str, token: str) -> None:
        """Use the token up. Raises LocalProtocolError if it is not the one that was offered."""
        with self._lock:
            offer = self._offers.get((action, user))
            known = offer is not None and hmac.compare_digest(offer.token.encode(), token.encode(errors="replace"))
            if known:
                del self._offers[action, user]
        if offer is None or not known or self._clock() > offer.until:
            raise LocalProtocolError(f"this is asked twice: get {action} first, and send its confirm within 2 minutes")
