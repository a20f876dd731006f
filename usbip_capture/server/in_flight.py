"""Bytes that clients have in flight: of requests that a device has, and of replies that they have not read."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

#: For the sessions of one address, and for all: more than one session may have, and much less than a machine's memory.
MAX_OF_ADDRESS, MAX_OF_ALL = 256 << 20, 512 << 20
#: Bytes by which what a session has may change before it is looked at again.
STEP = 1 << 20


class InFlight:
    """What the sessions of a server have in flight together, asked of them when one of them grows by STEP bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: defaultdict[str, list[Callable[[], int]]] = defaultdict(list)

    def join(self, address: str, size: Callable[[], int]) -> None:
        """Count a session of this address. size: returns its bytes in flight, to any thread."""
        with self._lock:
            self._sessions[address].append(size)

    def leave(self, address: str, size: Callable[[], int]) -> None:
        """Do not count it any more. May be called for one that is not counted."""
        with self._lock, suppress(ValueError):
            self._sessions[address].remove(size)
            if not self._sessions[address]:
                del self._sessions[address]

    def is_too_much(self, address: str) -> bool:
        """Whether the sessions of this address have more than they may.

        That is MAX_OF_ADDRESS; if all have more than MAX_OF_ALL, their equal share of this.
        """
        with self._lock:
            sizes = {key: sum(size() for size in found) for key, found in self._sessions.items()}
        own = sizes.get(address, 0)
        return own > MAX_OF_ADDRESS or (sum(sizes.values()) > MAX_OF_ALL and own > MAX_OF_ALL // len(sizes))
