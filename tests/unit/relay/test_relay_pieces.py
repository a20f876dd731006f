"""The relay's parts without a socket: crossed unlinks, what is kept of a device, addresses, the channel's messages."""

from __future__ import annotations

import os
import select

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.access.rules import AccessRules
from usbip_capture.capture.seen import SeenRequests
from usbip_capture.errors import LocalProtocolError, RemoteProtocolError
from usbip_capture.live import messages
from usbip_capture.live.messages import Lines
from usbip_capture.net.listening import Peer
from usbip_capture.net.networks import listen_address, parse_networks
from usbip_capture.net.ruling import policy_of
from usbip_capture.relay.observation import Observation
from usbip_capture.relay.readiness import READABLE, WRITABLE, Poller, PollPoller, SelectPoller
from usbip_capture.relay.relay import WINDOW_NS
from usbip_capture.relay.ruling import relay_rules
from usbip_capture.usb.setup import get_descriptor, set_configuration, set_interface
from usbip_capture.usb.status import ECONNRESET
from usbip_capture.usb.urb import Completion, TransferType, Urb
from usbip_capture.wire.hindsight import Hindsight
from usbip_capture.wire.observed import Completed, Event, Submitted, Unlink

READ = Urb(TransferType.BULK, 0x81, 64)


def completed(timestamp_ns: int, seqnum: int, data: bytes = b"data") -> Completed:
    return Completed(timestamp_ns, seqnum, READ, Completion(0, len(data), data), 0)


class Held:
    """A Hindsight, one connection, and what was handed on."""

    def __init__(self) -> None:
        self.out: list[Event] = []
        self.hindsight = Hindsight(
            lambda _, event: self.out.append(event), WINDOW_NS, max_events=4096, max_bytes=1 << 20
        )
        self.one, self.other = (Observation(n, "", self.hindsight.add) for n in (1, 2))


def test_an_unlink_that_crosses_its_reply_changes_it() -> None:
    held = Held()
    held.hindsight.add(held.one, [completed(0, 7), completed(1, 8)])
    held.hindsight.add(held.other, [completed(2, 7)])
    held.hindsight.add(held.one, [Unlink(3, 9, 7, b"")])
    held.hindsight.flush()
    statuses = [event.completion.status for event in held.out if isinstance(event, Completed)]
    assert statuses == [-ECONNRESET, 0, 0]
    assert isinstance(held.out[0], Completed)
    assert (held.out[0].unlink, held.out[0].completion.data) == (9, b"data")


def test_events_are_held_for_the_window_and_keep_their_order() -> None:
    held = Held()
    held.hindsight.add(held.one, [completed(0, 1), completed(WINDOW_NS // 2, 2)])
    held.hindsight.release(WINDOW_NS - 1)
    assert held.out == []
    held.hindsight.release(WINDOW_NS)
    assert [event.seqnum for event in held.out if isinstance(event, Completed)] == [1]
    held.hindsight.add(held.one, [Unlink(WINDOW_NS + 1, 3, 1, b"")])  # too late
    held.hindsight.flush()
    assert [type(event) for event in held.out] == [Completed, Completed, Unlink]


def test_what_is_held_is_bounded() -> None:
    held = Held()
    for number in range(100):
        held.hindsight.add(held.one, [completed(0, number, bytes(100_000))])
    assert len(held.out) >= 88
    held.hindsight.flush()
    write = Urb(TransferType.BULK, 0x02, 100_000)
    held.hindsight.add(held.one, [Submitted(0, number, write, bytes(100_000)) for number in range(100)])
    assert len(held.hindsight.items) <= 11
    held.hindsight.flush()
    for number in range(10_000):
        held.hindsight.add(held.one, [completed(0, number, b"")])
    assert len(held.hindsight.items) <= 4096


def seen(*pairs: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    requests = SeenRequests()
    for setup, data in pairs:
        requests.saw(Urb.control(setup), Completion(0, len(data), data))
    return [(urb.setup, bytes(done.data)) for urb, done in requests.requests]


def test_the_longest_reading_of_a_descriptor_is_kept_in_its_place() -> None:
    head, whole = get_descriptor(2, 0, 0, 9).pack(), get_descriptor(2, 0, 0, 40).pack()
    device = get_descriptor(1, 0, 0, 18).pack()
    assert seen((head, bytes(9)), (device, bytes(18)), (whole, bytes(40)), (head, bytes(9))) == [
        (whole, bytes(40)),
        (device, bytes(18)),
    ]


def test_settings_are_kept_as_they_are_now() -> None:
    first, second = set_configuration(1).pack(), set_configuration(2).pack()
    alternate, back = set_interface(1, 1).pack(), set_interface(1, 0).pack()
    assert seen((first, b""), (alternate, b""), (back, b"")) == [(first, b""), (back, b"")]
    assert seen((first, b""), (alternate, b""), (second, b"")) == [(second, b"")]


def test_what_failed_and_what_is_no_descriptor_is_not_kept() -> None:
    requests = SeenRequests()
    requests.saw(Urb.control(get_descriptor(1, 0, 0, 18).pack()), Completion(-32))
    requests.saw(Urb.control(bytes.fromhex("a1010001000008 00".replace(" ", ""))), Completion(0, 8, bytes(8)))
    requests.saw(READ, Completion(0, 4, b"data"))
    assert requests.requests == []


def test_what_is_kept_is_bounded() -> None:
    assert len(seen(*((get_descriptor(3, n, 0, 255).pack(), bytes(4)) for n in range(256)))) <= 256
    kept = seen(*((get_descriptor(6, n, 0, 65535).pack(), bytes(65535)) for n in range(100)))
    assert sum(len(data) for _, data in kept) <= 512 << 10


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", ("127.0.0.1", 3240)),
        ("0", ("127.0.0.1", 0)),
        (":3241", ("127.0.0.1", 3241)),
        ("0.0.0.0:3241", ("0.0.0.0", 3241)),
        ("[::1]:3241", ("::1", 3241)),
        ("::1", ("::1", 3240)),
    ],
)
def test_where_to_listen(text: str, address: tuple[str, int]) -> None:
    assert listen_address(text) == address


def test_what_is_no_address_to_listen_on_is_a_sentence() -> None:
    with pytest.raises(LocalProtocolError, match=r"'localhost:0:1' is not an address: write"):
        listen_address("localhost:0:1")


def refused(peer: str, rules: AccessRules) -> bool:
    return bool(policy_of(lambda: rules)(Peer(peer, 1, "203.0.113.1")))


def test_who_may_connect() -> None:
    rules = relay_rules(["192.0.2.0/24, 2001:db8::/32 198.51.100.7", "203.0.113.9 1-1.4"], ["192.0.2.66"])
    for peer in ("127.0.0.1", "::1", "192.0.2.200", "198.51.100.7", "2001:db8::5", "::ffff:192.0.2.1", "203.0.113.9"):
        assert not refused(peer, rules), peer
    for peer in ("192.0.3.1", "198.51.100.8", "2001:db9::1", "::ffff:10.0.0.1", "fe80::1%eth0", "192.0.2.66"):
        assert refused(peer, rules), peer
    with pytest.raises(LocalProtocolError, match="not a network"):
        parse_networks("192.0.2.0/24, here")


@pytest.mark.parametrize("text", ["here", "192.0.2.7 class:03", "192.0.2.7 303a:4001:AB", "192.0.2.7 1-1, pi 1-2"])
def test_what_a_relay_cannot_decide_is_a_sentence(text: str) -> None:
    for options in ({"allow": [text]}, {"deny": [text]}):
        with pytest.raises(LocalProtocolError):
            relay_rules(**options)


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20), max_size=3)), st.data())
def test_messages_survive_any_cut(sent: list[messages.Message], data: st.DataObject) -> None:
    import json

    stream = b"".join(json.dumps(message).encode() + b"\n" for message in sent)
    lines, got = Lines(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += lines.feed(stream[:size])
        stream = stream[size:]
    assert got == sent


@given(st.binary(max_size=80))
def test_garbage_is_a_protocol_error(garbage: bytes) -> None:
    try:
        for message in Lines().feed(garbage + b"\n"):
            messages.number(message, "x")
            messages.text(message, "y")
    except RemoteProtocolError:
        pass


@pytest.mark.skipif(not hasattr(select, "poll"), reason="this system has no poll")
@pytest.mark.parametrize("make", [PollPoller, SelectPoller])
def test_the_ways_to_wait_that_other_systems_have(make: type[PollPoller] | type[SelectPoller]) -> None:
    poller: Poller = make()
    reading, writing = os.pipe()
    poller.register(reading, READABLE)
    poller.register(writing, 0)
    assert poller.poll(0) == []
    poller.modify(writing, WRITABLE)
    assert poller.poll(-1) == [(writing, WRITABLE)]
    os.write(writing, b"x")
    assert sorted(poller.poll(1.0)) == sorted([(reading, READABLE), (writing, WRITABLE)])
    poller.unregister(writing)
    assert poller.poll(1.0) == [(reading, READABLE)]
    os.close(reading)
    os.close(writing)
