"""How much of a server one address may take, so that a flood from one never keeps others out. Pure: times are given.

An address stands for all that one client has: of IPv6 the whole network of 64 bits. Ref: RFC 4291, 2.5.1
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T", bound=Hashable)

#: Addresses whose connections are counted at a time; the one that has not connected for longest is forgotten first.
MAX_REMEMBERED = 4096
#: By default: from one address, with as many at once; and seconds for the first request.
CONNECTIONS_PER_SECOND, REQUEST_TIMEOUT = 100, 10
#: A client that could take longer would only hold its place.
MAX_REQUEST_TIMEOUT = 3600
#: Seconds without a device after which a connection may have to go for one of another address that has as many.
PATIENCE = 2.0
TOO_MANY, TOO_MANY_OF_ADDRESS = "too many clients", "too many clients of its address"
TOO_OFTEN = "its address connects too often"


@dataclass(slots=True, frozen=True)
class Limits:
    """max_clients, max_clients_per_address: at a time, with a device or without. connections_per_second: from one
    address; as many may come at once. Each is 0 without limit. request_timeout: seconds for the first request, and to
    take its answer. max_waiting: clients without a device; for a further one, one of the address that has most is given
    up.
    """

    max_clients: int = 0
    max_clients_per_address: int = 0
    connections_per_second: int = CONNECTIONS_PER_SECOND
    request_timeout: float = REQUEST_TIMEOUT
    max_waiting: int = 128


def key_of(host: str) -> str:
    """What an address is counted as: itself, or its network of 64 bits. What is not one stands for itself."""
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host)  # with its zone, as `fe80::1%eth0`
    except ValueError:
        return host
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else f"{IPv6Address(int(address) >> 64 << 64)}/64"


class TokenBuckets:
    """A bucket of `burst` tokens for each key, into which `rate` come in a second. Not for several threads at once.

    At most `most` keys are remembered: one that was forgotten has a full bucket again.
    """

    def __init__(self, rate: float, burst: float, most: int = MAX_REMEMBERED) -> None:
        self._each = 1.0 / rate
        self._burst = burst * self._each
        self._most = most
        # When each bucket is full again, in seconds; the one that was used last is the last.
        self._full_at: dict[str, float] = {}

    def take(self, key: str, now: float) -> bool:
        """Take a token; False if there is none. now: seconds, of a clock that does not go back."""
        full_at = self._full_at.pop(key, now)
        after = max(full_at, now) + self._each
        taken = after - now <= self._burst + 1e-9
        if len(self._full_at) >= self._most:
            del self._full_at[next(iter(self._full_at))]
        self._full_at[key] = after if taken else full_at
        return taken

    def __len__(self) -> int:
        return len(self._full_at)


class Waiting(NamedTuple, Generic[T]):
    """A client without a device. address: as `key_of` has it; since: when it came, or was last active, in seconds."""

    client: T
    address: str
    since: float


class Room(NamedTuple, Generic[T]):
    """Whether there is room for a client. refusal: why not, or empty. given_up: who has to go for it, if anybody."""

    refusal: str = ""
    given_up: T | None = None


def longest_of_most(waiting: Iterable[Waiting[T]], newcomer: str) -> tuple[Waiting[T] | None, int]:
    """Who is to be given up for a client of the address `newcomer`, and how many of its own address wait.

    That is who waits longest of the address that has most. The newcomer counts as one of its own address; of addresses
    that have as many it is that of who waits longest.
    """
    waiting = list(waiting)
    counts = Counter(one.address for one in waiting)
    counts[newcomer] += 1
    first = min(waiting, key=lambda one: (-counts[one.address], one.since), default=None)
    return first, counts[first.address] if first is not None else 0


def room_when_full(waiting: Iterable[Waiting[T]], newcomer: str, now: float, patience: float = PATIENCE) -> Room[T]:
    """Whether one of the address `newcomer` may come although there are as many clients as can be.

    Only if another address has more that wait than its own has then, or if one has waited for `patience` seconds.
    """
    waiting = list(waiting)
    found, count = longest_of_most(waiting, newcomer)
    own = 1 + sum(one.address == newcomer for one in waiting)
    if found is not None and found.address != newcomer and count > own:
        return Room(given_up=found.client)
    longest = min(waiting, key=lambda one: one.since, default=None)
    if longest is not None and now - longest.since >= patience:
        return Room(given_up=longest.client)
    return Room(TOO_MANY)


class Places(Generic[T]):
    """The clients of a server: how many there are of each address, and which have no device yet.

    Not for several threads at once.
    """

    def __init__(self) -> None:
        self._addresses: dict[T, str] = {}
        self._counts: Counter[str] = Counter()
        self._waiting: dict[T, Waiting[T]] = {}  # the oldest first
        self._leaving: set[T] = set()  # given up, but still here

    def __len__(self) -> int:
        return len(self._addresses)

    def room(self, address: str, now: float, limits: Limits) -> Room[T]:
        """Whether one more of this address may come, and who goes for it: `give_up` it.

        Who has a device never goes. For `max_waiting` one always goes, for the other limits as `room_when_full` has it,
        or if it is of the same address and has waited for PATIENCE seconds.
        """
        if self.is_crowded(limits):
            return Room(TOO_MANY)
        if 0 < limits.max_clients_per_address <= self._counts[address]:
            own = next((one for one in self._waiting.values() if one.address == address), None)
            if own is None or now - own.since < PATIENCE:
                return Room(TOO_MANY_OF_ADDRESS)
            return Room(given_up=own.client)
        is_full = 0 < limits.max_clients <= len(self._addresses) - len(self._leaving)
        if is_full:
            return room_when_full(self._waiting.values(), address, now)
        if len(self._waiting) < limits.max_waiting:
            return Room()
        found, _ = longest_of_most(self._waiting.values(), address)
        return Room(given_up=found.client) if found is not None else Room(TOO_MANY)

    def is_crowded(self, limits: Limits) -> bool:
        """Whether so many that were given up are still here that what they hold is to be free first."""
        return len(self._leaving) >= max(limits.max_waiting, 1)

    def enter(self, client: T, address: str, now: float) -> None:
        """It has come, and has no device yet."""
        self._addresses[client] = address
        self._counts[address] += 1
        self._waiting[client] = Waiting(client, address, now)

    def settle(self, client: T) -> None:
        """It has a device."""
        self._waiting.pop(client, None)

    def give_up(self, client: T) -> None:
        """It is to leave, and takes the place of nobody from now on."""
        if self._waiting.pop(client, None) is not None:
            self._leaving.add(client)
            self._uncount(client)

    def longest(self) -> T | None:
        """Who waits longest of the address that has most waiting; None if nobody waits."""
        found, _ = longest_of_most(self._waiting.values(), "")
        return found.client if found is not None else None

    def leave(self, client: T) -> None:
        """It has left. May be called for one that never came."""
        self._waiting.pop(client, None)
        if client not in self._leaving:
            self._uncount(client)
        self._leaving.discard(client)
        self._addresses.pop(client, None)

    def _uncount(self, client: T) -> None:
        address = self._addresses.get(client)
        if address is not None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]  # an address that has left is not remembered
