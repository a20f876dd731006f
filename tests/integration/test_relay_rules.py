"""The relay asks the same rules: who may connect, and which device a client may have through it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial

import pytest

from tests.builders.usbip_sessions import session
from tests.fakes.raw_client import RawClient
from tests.fakes.relayed_session import TIMEOUT, Ends, ends, play
from tests.fakes.scripted_server import read_exactly
from tests.waiting import wait_until
from usbip_capture.cli import exits
from usbip_capture.cli.main import main
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.net.listening import Peer
from usbip_capture.net.transport import reset_on_close
from usbip_capture.relay.relay import Relay
from usbip_capture.relay.ruling import port_refusal, relay_rules
from usbip_capture.server import Server
from usbip_capture.servers.address import ServerAddress
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo
from usbip_capture.wire import structs
from usbip_capture.wire.server import ServerConnection

READ = "8006000100001200"
Make = Callable[..., Relay]


@pytest.fixture
def relay() -> Iterator[Make]:
    """A relay with such rules to a server that has 1-1 and 1-2."""
    with ExitStack() as stack:
        server = Server()
        stack.callback(server.close)
        for busid, product in (("1-1", 1), ("1-2", 2)):
            info = replace(INFO, busid=busid, idProduct=product)
            server.add(info, partial(DemoDevice, info))
        there = ServerAddress(*server.listen("127.0.0.1", 0))

        def make(**rules: list[str]) -> Relay:
            return stack.enter_context(closing(Relay(there, port=0, rules=relay_rules(**rules))))

        yield make


@pytest.mark.parametrize("denied", ["127.0.0.1 1-1", "any 1209:0001", "127.0.0.0/8 1-3, local 1-1"])
def test_a_device_that_a_client_may_not_have_is_not_there_for_it(denied: str, relay: Make) -> None:
    made = relay(allow=["192.0.2.0/24"], deny=[denied])
    with RawClient(("127.0.0.1", made.port), "1-2") as other:
        with RawClient(("127.0.0.1", made.port), "1-1") as client:
            assert client.status == structs.OpStatus.NODEV
            assert client.is_at_end()
        assert made.turned_away == 1
        assert other.ask(READ).status == 0
        assert [one.imported.busid for one in made.clients if one.imported] == ["1-2"]


def test_a_client_that_may_have_no_device_cannot_connect(relay: Make) -> None:
    made = relay(deny=["local"])
    # The reset may come before the client is done with connecting.
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", made.port), 20) as sock:
        sock.recv(1)
    assert made.turned_away == 1
    assert not made.clients


def test_where_it_matters_which_device_it_is_a_client_that_cannot_be_observed_is_broken_off(
    relay: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rules, is_ended in (({"deny": ["local 1-3"]}, True), ({"allow": ["192.0.2.0/24"]}, False)):
        made = relay(**rules)
        with socket.create_connection(("127.0.0.1", made.port), 20) as sock:
            wait_until("it is there", lambda made=made: made.clients)  # type: ignore[misc]
            observation = made.clients[0]
            made._calls.wait(partial(observation.give_up, 0))
            if is_ended:
                with pytest.raises(ConnectionResetError):
                    sock.recv(1)
            else:
                assert made.clients == [observation]


@pytest.mark.parametrize("option", ["--allow=here", "--deny=192.0.2.0/33", "--deny=any class:03"])
def test_what_cannot_be_decided_is_one_sentence(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "demo", "--listen", "127.0.0.1:0", option]) == exits.USAGE
    assert capsys.readouterr().err.count("\n") == 1


# -- nothing of a device passes before it is decided

OTHER = replace(INFO, busid="1-2", idProduct=2)
LIST = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REQ_DEVLIST, 0)
SUBMIT = structs.CMD_SUBMIT.pack(1, 1, INFO.devid, 1, 0, 0, 18, 0, 0, 0, bytes.fromhex(READ))
NODEV = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_IMPORT, structs.OpStatus.NODEV)
NA = structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_IMPORT, structs.OpStatus.NA)
BY_PORT, BY_IDENTITY = ["any 1-1"], [f"any {INFO.idVendor:04x}:{INFO.idProduct:04x}"]
#: These allow it, and it matters which device it is.
ELSEWHERE = ["any 1-9", "any 1209:9999"]


def asked(busid: str = "1-1") -> bytes:
    return structs.OP_COMMON.pack(structs.VERSION, structs.OP_REQ_IMPORT, 0) + structs.pack_busid(busid)


def granted(info: DeviceInfo = INFO) -> bytes:
    return structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_IMPORT, 0) + structs.pack_device(info)


@pytest.fixture
def with_rules() -> Iterator[Callable[[list[str]], Ends]]:
    """Both ends of a relay with these rules of denial."""
    with ExitStack() as stack:
        yield lambda deny: stack.enter_context(ends(rules=relay_rules(deny=deny)))


def seen_by_relay(both: Ends) -> None:
    """What was sent until now has been read, if it is to be: it was there when the second of two turns began."""
    for _ in range(2):
        both.relay._calls.wait(lambda: None)


def has_nothing(sock: socket.socket) -> bool:
    """Whether nothing has come, not even the end."""
    sock.setblocking(False)
    try:
        return not sock.recv(1) and False
    except BlockingIOError:
        return True
    finally:
        sock.settimeout(TIMEOUT)


def is_broken_off(server: socket.socket) -> bool:
    """Whether the relay has reset it, and sent nothing before."""
    try:
        return not server.recv(1) and False
    except ConnectionResetError:
        return True


def all_of(sock: socket.socket) -> bytes:
    """Until the stream ends, as an end."""
    return b"".join(iter(partial(sock.recv, 4096), b""))


def connected(both: Ends) -> tuple[socket.socket, socket.socket]:
    """A client that the relay reads from."""
    before = len(both.relay.clients)
    found = both.connect()
    wait_until("it is there", lambda: len(both.relay.clients) > before)
    return found


def test_a_port_that_is_denied_is_not_even_asked_for(with_rules: Callable[[list[str]], Ends]) -> None:
    both = with_rules(BY_PORT)
    client, server = connected(both)
    client.sendall(asked() + SUBMIT)
    assert all_of(client) == NODEV
    assert is_broken_off(server)
    both.wait_gone()
    assert both.relay.turned_away == 1


def test_what_is_sent_ahead_of_a_denied_import_goes_nowhere(with_rules: Callable[[list[str]], Ends]) -> None:
    both = with_rules(BY_IDENTITY)
    client, server = connected(both)
    client.sendall(asked() + SUBMIT)
    assert read_exactly(server, 40) == asked()
    seen_by_relay(both)
    assert has_nothing(server)
    server.sendall(granted() + bytes(48))
    assert all_of(client) == NODEV
    assert is_broken_off(server)
    both.wait_gone()
    assert both.relay.turned_away == 1


def test_a_reply_that_names_a_denied_device_does_not_pass_whatever_was_asked_for(
    with_rules: Callable[[list[str]], Ends],
) -> None:
    client, server = with_rules(BY_PORT).connect()
    client.sendall(asked("1-2"))
    read_exactly(server, 40)
    server.sendall(granted())
    assert all_of(client) == NODEV


@pytest.mark.parametrize("deny", [BY_PORT, BY_IDENTITY, ELSEWHERE])
def test_it_does_not_matter_how_tcp_cuts_a_request(deny: list[str], with_rules: Callable[[list[str]], Ends]) -> None:
    both = with_rules(deny)
    for cut in range(1, 40):
        client, server = connected(both)
        client.sendall(asked()[:cut])
        seen_by_relay(both)
        assert has_nothing(server)
        client.sendall(asked()[cut:] + SUBMIT)
        if deny is not BY_PORT:
            assert read_exactly(server, 40) == asked()
            server.sendall(granted())
        if deny is ELSEWHERE:
            assert read_exactly(client, 320) == granted()
            assert read_exactly(server, 48) == SUBMIT
        else:
            assert client.recv(100) == NODEV
            assert is_broken_off(server)
        client.close()
        server.close()
        both.wait_gone()


@pytest.mark.parametrize("deny", [BY_IDENTITY, ELSEWHERE])
def test_it_does_not_matter_how_tcp_cuts_a_reply(deny: list[str], with_rules: Callable[[list[str]], Ends]) -> None:
    both = with_rules(deny)
    for cut in range(1, 320):
        client, server = both.connect()
        client.sendall(asked() + SUBMIT)
        assert read_exactly(server, 40) == asked()
        server.sendall(granted()[:cut])
        seen_by_relay(both)
        assert has_nothing(client)
        assert has_nothing(server)
        server.sendall(granted()[cut:])
        if deny is ELSEWHERE:
            assert read_exactly(client, 320) == granted()
            assert read_exactly(server, 48) == SUBMIT
        else:
            assert client.recv(400) == NODEV
            assert is_broken_off(server)
        client.close()
        server.close()
        both.wait_gone()


def test_a_client_that_sends_ahead_is_held_by_its_own_tcp_and_then_goes_on(
    with_rules: Callable[[list[str]], Ends],
) -> None:
    """However much that is; others are forwarded meanwhile, and the server's reply with what follows it at once."""
    both = with_rules(ELSEWHERE)
    client, server = connected(both)
    ahead = bytes(range(256)) * (1 << 16)
    client.setblocking(False)
    sent = client.send(asked())
    while True:  # as much as two systems' buffers take
        try:
            sent += client.send(ahead)
        except BlockingIOError:
            seen_by_relay(both)
            break
    assert read_exactly(server, 40) == asked()
    assert has_nothing(server)
    assert both.relay._connections[both.relay.clients[0]].forwarded == (40, 0)
    play(*both.connect(), session(), 1000)
    server.sendall(granted() + b"at once")
    client.settimeout(TIMEOUT)
    assert read_exactly(client, 327) == granted() + b"at once"
    assert len(read_exactly(server, 1 << 16)) == 1 << 16


def test_an_imported_device_is_forwarded_as_without_rules(with_rules: Callable[[list[str]], Ends]) -> None:
    both = with_rules(ELSEWHERE)
    play(*both.connect(), session(), 1)
    (connection,) = both.relay._connections.values()
    ways = [end.outgoing.receive for end in connection.ends]
    assert [getattr(way, "__self__", None).__class__ for way in ways] == [socket.socket] * 2


def test_a_device_that_is_denied_is_not_in_the_list(with_rules: Callable[[list[str]], Ends]) -> None:
    infos = [replace(one, bNumInterfaces=2, interfaces=(InterfaceInfo(3, 0, 0),) * 2) for one in (INFO, OTHER, INFO)]
    whole, filtered = (ServerConnection().devlist(some) for some in (infos, infos[1:2]))
    both = with_rules(BY_PORT)
    for cut in (1, 8, 11, 12, 13, 323, 324, 325, 331, 332, 333, len(whole) - 1):
        client, server = both.connect()
        client.sendall(LIST)
        client.shutdown(socket.SHUT_WR)
        assert read_exactly(server, 8) == LIST
        server.sendall(whole[:cut])
        seen_by_relay(both)
        assert has_nothing(client)
        server.sendall(whole[cut:])
        server.close()
        assert all_of(client) == filtered
        both.wait_gone()


@pytest.mark.parametrize("infos", [[], [INFO, INFO]])
def test_a_list_can_be_empty(infos: list[DeviceInfo], with_rules: Callable[[list[str]], Ends]) -> None:
    client, server = with_rules(BY_IDENTITY).connect()
    client.sendall(LIST + asked("1-7"))  # and the next request may follow
    read_exactly(server, 8)
    server.sendall(ServerConnection().devlist(infos))
    assert read_exactly(client, 12) == ServerConnection().devlist([])
    assert read_exactly(server, 40) == asked("1-7")
    server.sendall(NODEV)
    assert read_exactly(client, 8) == NODEV
    client.sendall(asked("1-8"))
    assert read_exactly(server, 40) == asked("1-8")


@pytest.mark.parametrize(
    "first", [SUBMIT, b"GET / HTTP/1.1\r\n", LIST[:3] + b"\1" + LIST[4:]], ids=["urb", "http", "code"]
)
def test_what_is_not_a_request_does_not_pass(first: bytes, with_rules: Callable[[list[str]], Ends]) -> None:
    client, server = with_rules(ELSEWHERE).connect()
    client.sendall(first)
    assert client.recv(100)[2:] == NA[2:]
    assert is_broken_off(server)


def too_long() -> bytes:
    return structs.OP_COMMON.pack(structs.VERSION, structs.OP_REP_DEVLIST, 0) + structs.DEVLIST_COUNT.pack(1 << 30)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (asked(), b"HTTP/1.1"),
        (asked(), ServerConnection().devlist([INFO])),
        (LIST, granted()),
        (LIST, too_long()),
        (LIST, ServerConnection().devlist([INFO] * 4000)),
        (b"", granted()),
    ],
    ids=["not USB/IP", "list for import", "import for list", "impossible count", "long list", "nothing asked"],
)
def test_a_reply_that_cannot_be_decided_does_not_pass(
    request_: bytes, reply: bytes, with_rules: Callable[[list[str]], Ends]
) -> None:
    both = with_rules(["any 1-9"])
    client, server = connected(both)
    client.sendall(request_)
    read_exactly(server, len(request_))
    try:
        server.sendall(reply)
    except ConnectionError:  # the relay needs no more of it
        pass
    assert all_of(client) == NA
    both.wait_gone()


def test_the_end_of_either_side_is_seen_while_a_reply_is_waited_for(with_rules: Callable[[list[str]], Ends]) -> None:
    both = with_rules(ELSEWHERE)
    client, server = both.connect()
    client.sendall(asked() + SUBMIT)
    read_exactly(server, 40)
    reset_on_close(client)
    client.close()
    assert is_broken_off(server)
    client, server = both.connect()
    client.sendall(asked()[:30])
    server.close()
    assert client.recv(1) == b""
    client.close()
    client, server = both.connect()
    client.sendall(asked())
    read_exactly(server, 40)
    server.sendall(granted()[:100])
    server.close()
    assert client.recv(1) == b""
    client.close()
    both.wait_gone()


def test_what_a_rule_may_allow_by_its_identity_is_asked_for() -> None:
    """From another machine, where what no rule allows is denied."""
    peer = Peer("192.0.2.7", 1, "192.0.2.1")
    for allow, deny, expected in (
        (["192.0.2.7 1-2"], [], True),
        (["192.0.2.7 1-1"], [], False),
        (["192.0.2.7 1-2", "192.0.2.0/24 1209:0001"], [], False),
        (["192.0.2.7 1-2", "192.0.2.8 1209:0001"], [], True),
        (["192.0.2.7 1209:0001"], ["any 1-1"], True),
    ):
        assert bool(port_refusal(relay_rules(allow, deny), peer, "1-1")) == expected
