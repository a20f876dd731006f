"""How much of a server one address may take: buckets, places and who is given up; the clock is the test's."""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest

from usbip_capture.access.limits import (
    PATIENCE,
    TOO_MANY,
    TOO_MANY_OF_ADDRESS,
    Limits,
    Places,
    Room,
    TokenBuckets,
    Waiting,
    key_of,
    longest_of_most,
    room_when_full,
)


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("", ""),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:207", "192.0.2.7"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_an_address_of_ipv6_is_its_network(host: str, key: str) -> None:
    assert key_of(host) == key


def test_as_many_at_once_as_the_bucket_holds_then_as_many_as_come_in() -> None:
    buckets = TokenBuckets(rate=10, burst=5)
    assert [buckets.take("a", 100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [buckets.take("a", 100.1) for _ in range(2)] == [True, False]
    assert all(buckets.take("b", 100.1) for _ in range(5))  # another one's bucket
    assert [buckets.take("a", 200.0) for _ in range(6)] == [True] * 5 + [False]


def test_who_goes_on_too_fast_still_gets_what_comes_in() -> None:
    """A refused connection takes no token: nobody is banned."""
    buckets = TokenBuckets(rate=100, burst=100)
    taken = sum(buckets.take("a", number / 1000) for number in range(10_000))
    assert taken == pytest.approx(100 + 10 * 100, abs=2)


@pytest.mark.parametrize("seed", range(5))
def test_buckets_do_what_counting_does(seed: int) -> None:
    """The slow, obvious one: tokens that come in one by one."""
    random_ = random.Random(seed)
    rate, burst = random_.choice([1, 4, 8]), random_.choice([1, 3, 16])
    buckets = TokenBuckets(rate, burst)
    tokens = dict.fromkeys("abc", float(burst))
    last = dict.fromkeys("abc", 0.0)
    now = 0.0
    for _ in range(2000):
        now += random_.choice([0.0, 0.0, 0.125, 0.5, 4.0])  # which are exact
        key = random_.choice("abc")
        tokens[key] = min(tokens[key] + (now - last[key]) * rate, burst)
        last[key] = now
        expected = tokens[key] >= 1
        tokens[key] -= expected
        assert buckets.take(key, now) == expected


def test_only_so_many_addresses_are_remembered_and_a_flood_is_not_forgotten() -> None:
    buckets = TokenBuckets(rate=1, burst=1, most=100)
    assert buckets.take("flood", 0.0)
    for number in range(10_000):
        buckets.take(f"other {number}", 0.0)
        assert not buckets.take("flood", 0.0)
        assert len(buckets) <= 100


def test_who_waits_longest_of_the_address_with_most_is_given_up() -> None:
    waiting = [Waiting("honest", "b", 0.0), Waiting("first", "a", 1.0), Waiting("second", "a", 2.0)]
    assert longest_of_most(waiting, "b") == (waiting[0], 2)  # as many: who waits longest
    assert longest_of_most(waiting, "c") == (waiting[1], 2)
    assert longest_of_most(waiting, "a") == (waiting[1], 3)
    assert longest_of_most([], "a") == (None, 0)


def test_there_is_room_for_another_address_or_after_a_while() -> None:
    flood = [Waiting("first", "a", 1.0), Waiting("second", "a", 1.5)]
    assert room_when_full(flood, "b", 1.6) == Room(given_up="first")
    assert room_when_full(flood, "a", 1.6) == Room(TOO_MANY)
    assert room_when_full(flood, "a", 1.0 + PATIENCE) == Room(given_up="first")
    assert room_when_full(flood[:1], "b", 1.6) == Room(TOO_MANY)  # each address has one
    assert room_when_full([], "b", 100.0) == Room(TOO_MANY)  # all have devices


def come(places: Places[str], client: str, address: str, now: float, limits: Limits) -> Room[str]:
    room = places.room(address, now, limits)
    if not room.refusal:
        if room.given_up is not None:
            places.give_up(room.given_up)
        places.enter(client, address, now)
    return room


def test_a_client_in_its_request_outlives_a_flood_of_another_address() -> None:
    places: Places[str] = Places()
    limits = Limits(max_waiting=8)
    come(places, "honest", "b", 0.0, limits)
    gone = []
    for number in range(1000):
        room = come(places, f"flood {number}", "a", 1.0, limits)
        if room.given_up is not None:
            gone.append(room.given_up)
            places.leave(room.given_up)
    assert gone == [f"flood {number}" for number in range(len(gone))]
    assert len(places) == 8


def test_those_that_are_given_up_hold_their_places_until_they_have_left() -> None:
    places: Places[str] = Places()
    limits = Limits(max_waiting=4)
    rooms = [come(places, str(number), "a", 0.0, limits) for number in range(20)]
    assert [room.refusal for room in rooms] == [""] * 8 + [TOO_MANY] * 12
    assert len(places) == 8
    places.leave("0")
    assert come(places, "next", "a", 0.0, limits) == Room(given_up="4")


def test_a_limit_of_clients_keeps_those_with_a_device() -> None:
    places: Places[str] = Places()
    limits = Limits(max_clients=2)
    come(places, "user", "a", 0.0, limits)
    places.settle("user")
    come(places, "idle", "a", 1.0, limits)
    assert come(places, "x", "b", 1.0, limits) == Room(TOO_MANY)
    assert come(places, "x", "b", 1.0 + PATIENCE, limits) == Room(given_up="idle")
    places.settle("x")
    assert come(places, "y", "c", 99.0, limits) == Room(TOO_MANY)
    places.leave("user")
    assert come(places, "y", "c", 99.0, limits) == Room()


def test_a_limit_for_each_address() -> None:
    places: Places[str] = Places()
    limits = Limits(max_clients_per_address=2)
    for client in ("one", "two"):
        come(places, client, "a", 0.0, limits)
        places.settle(client)
    assert come(places, "three", "a", 99.0, limits) == Room(TOO_MANY_OF_ADDRESS)
    assert come(places, "other", "b", 0.0, limits) == Room()
    places.leave("one")
    assert come(places, "three", "a", 99.0, limits) == Room()
    assert come(places, "four", "a", 99.1, limits) == Room(TOO_MANY_OF_ADDRESS)
    assert come(places, "four", "a", 99.0 + PATIENCE, limits) == Room(given_up="three")


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_left_of_clients_that_have_left(seed: int) -> None:
    random_ = random.Random(seed)
    places: Places[int] = Places()
    limits = Limits(max_clients=20, max_clients_per_address=6, max_waiting=8)
    here: set[int] = set()
    recent: deque[int] = deque(maxlen=5)
    for number in range(3000):
        address = random_.choice("abcdef")
        room = places.room(address, number / 10, limits)
        if not room.refusal:
            if room.given_up is not None:
                assert room.given_up in here
                places.give_up(room.given_up)
            places.enter(number, address, number / 10)
            here.add(number)
            recent.append(number)
        if recent and random_.random() < 0.4:
            places.settle(random_.choice(recent))
        if here and random_.random() < 0.5:
            gone = random_.choice(sorted(here))
            here.discard(gone)
            places.leave(gone)
        assert len(places) == len(here) <= limits.max_clients + limits.max_waiting
    for client in here:
        places.leave(client)
    assert len(places) == 0
    assert places._counts == Counter()
    assert not places._waiting
    assert not places._leaving
