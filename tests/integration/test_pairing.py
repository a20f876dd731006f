"""Pairing over real TLS: a server, clients, strangers, and somebody in between."""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.builders.certificates import certificate, key_of
from tests.fakes.local_bus import FakeBus
from tests.waiting import wait_until
from usbip_capture import LocalServer, serve
from usbip_capture.devices.devlist import list_devices
from usbip_capture.devices.remote import import_device
from usbip_capture.errors import FileFormatError, LocalProtocolError, RemoteProtocolError, ServerUnreachable, UsbipError
from usbip_capture.net.listening import Peer
from usbip_capture.net.transport import SocketTransport, Transport
from usbip_capture.server.events import ENDED, PAIRED, REFUSED, UNPAIRED
from usbip_capture.serving.conversations import AT_ONCE
from usbip_capture.system import folder_lock
from usbip_capture.tls.certificates import CLIENT, SERVER, Identity, fingerprint, own_identity
from usbip_capture.tls.client import PAIRING, client_context, connect_tls, open_tls
from usbip_capture.tls.known_servers import KnownServer, known_servers
from usbip_capture.tls.paired_clients import (
    change_paired_clients,
    paired_clients_path,
    read_paired_clients,
    remove_paired_client,
)
from usbip_capture.tls.pairing import LIFETIME, MAX_LINE, TRIES, ClientSide, PairingFailed, ServerSide, code_of
from usbip_capture.tls.pairing_client import LineReader, pair_with
from usbip_capture.tls.server import ServerContext
from usbip_capture.tls.transport import TlsTransport

ANY, HOST = "127.0.0.1:0", "127.0.0.1"
TIMEOUT = 20.0
WRONG = code_of(bytes(8))


@pytest.fixture
def bus() -> FakeBus:
    made = FakeBus()
    made.plug("1-1")
    return made


@pytest.fixture
def server(bus: FakeBus) -> Iterator[LocalServer]:
    with serve(["all"], listen=ANY, tls=ANY, name="bench", bus=bus) as made:
        yield made


def port_of(server: LocalServer) -> int:
    assert server.tls is not None
    return server.tls.addresses[0][1]


def offered(server: LocalServer) -> str:
    assert server.tls is not None
    return server.tls.pairing.offer()[0]


def pair(server: LocalServer, code: str, name: str = "ann") -> str:
    return pair_with(HOST, port_of(server), code, name, TIMEOUT)


def kinds(server: LocalServer, kind: str) -> list[str]:
    return [event.text for event in server.events.after(0, 1000) if event.kind == kind]


def assert_nobody_is_paired(server: LocalServer) -> None:
    assert read_paired_clients() == {}
    assert known_servers() == {}
    assert server.access.paired == frozenset()
    assert kinds(server, PAIRED) == []


def talk(server: LocalServer, *, source: str = HOST) -> TlsTransport:
    """A connection for pairing, on which nothing has been sent."""
    sock = socket.create_connection((HOST, port_of(server)), TIMEOUT, (source, 0))
    sock.settimeout(None)
    transport = TlsTransport(SocketTransport(sock, "the server"), client_context(protocol=PAIRING))
    transport.handshake(TIMEOUT)
    return transport


def line_from(transport: Transport) -> bytes:
    return LineReader(transport).read(time.monotonic() + TIMEOUT)


def side(transport: TlsTransport, code: str, own: bytes, name: str = "ann") -> ClientSide:
    return ClientSide(transport.certificate, own, name, code, os.urandom(16))


def test_both_sides_know_each_other(server: LocalServer) -> None:
    found = pair(server, offered(server).lower())
    own = own_identity(CLIENT)
    assert server.tls is not None
    assert found == server.tls.fingerprint == own_identity(SERVER).fingerprint
    assert known_servers() == {(HOST, port_of(server)): KnownServer(found, paired=True)}
    (client,) = read_paired_clients().values()
    assert (client.name, client.certificate) == ("ann", own.certificate)
    assert abs(client.since - time.time()) < 1000
    assert os.stat(paired_clients_path()).st_mode & 0o777 == 0o600
    (event,) = [event for event in server.events.after(0, 1000) if event.kind == PAIRED]
    assert (event.peer and event.peer.identity, event.text) == ("paired:ann", own.fingerprint)
    assert [str(rule) for rule in server.access.in_force] == ["allow paired:ann all"]
    with closing(import_device(connect_tls(HOST, port_of(server), TIMEOUT), "1-1", TIMEOUT)):
        assert [one.peer.identity for one in server.clients] == ["paired:ann"]


def test_a_server_that_starts_again_knows_its_clients(server: LocalServer, bus: FakeBus) -> None:
    pair(server, offered(server))
    server.close()
    with (
        serve(["all"], listen=ANY, tls=f"{HOST}:{port_of(server)}", bus=bus) as again,
        closing(import_device(connect_tls(HOST, port_of(again), TIMEOUT), "1-1", TIMEOUT)),
    ):
        assert [one.peer.identity for one in again.clients] == ["paired:ann"]


def test_a_code_is_good_once(server: LocalServer) -> None:
    code = offered(server)
    pair(server, code)
    with pytest.raises(PairingFailed, match="no code is good there now: run `usbip-capture pair --offer` on that"):
        pair(server, code)


def test_without_an_offer_nobody_waits(server: LocalServer) -> None:
    with closing(talk(server)) as stranger:  # which sends nothing
        assert json.loads(line_from(stranger)) == {"error": "no-offer"}
        assert stranger.receive(1, TIMEOUT) == b""
    assert_nobody_is_paired(server)


def test_a_wrong_code_leaves_no_trace_but_the_event(server: LocalServer, caplog: pytest.LogCaptureFixture) -> None:
    code = offered(server)
    with pytest.raises(PairingFailed, match="the code is wrong, or somebody is in between"):
        pair(server, WRONG)
    assert_nobody_is_paired(server)
    assert [text for text in kinds(server, REFUSED) if "the code is wrong" in text]
    pair(server, code)


def test_the_sixth_try_is_too_many_even_with_the_code(server: LocalServer) -> None:
    code = offered(server)
    for _ in range(TRIES):
        with pytest.raises(PairingFailed, match="the code is wrong"):
            pair(server, WRONG)
    for _ in range(2):
        with pytest.raises(PairingFailed, match="no code is good there now"):
            pair(server, code)
    assert_nobody_is_paired(server)
    pair(server, offered(server))


def test_tries_at_the_same_time_count_as_others(server: LocalServer) -> None:
    """Each has begun while the code was good, as many as may talk at once, several times over."""
    code, own = offered(server), own_identity(CLIENT).certificate
    answers = []
    for _ in range(2):
        with ExitStack() as stack:
            talks = [stack.enter_context(closing(talk(server))) for _ in range(AT_ONCE)]
            hellos = [line_from(one) for one in talks]
            for one, hello in zip(talks, hellos, strict=True):
                if b"salt" in hello:
                    one.send([side(one, WRONG, own).request(hello)])
            answers += [line_from(one) if b"salt" in hello else hello for one, hello in zip(talks, hellos, strict=True)]
    assert sum(b"wrong-code" in answer for answer in answers) == TRIES
    assert sum(b"no-offer" in answer for answer in answers) == 2 * AT_ONCE - TRIES
    with pytest.raises(PairingFailed, match="no code is good there now"):
        pair(server, code)
    assert_nobody_is_paired(server)


def test_a_code_is_good_for_five_minutes(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    code = offered(server)
    assert server.tls is not None
    with closing(talk(server)) as early:
        hello = line_from(early)
        later = time.monotonic() + LIFETIME
        monkeypatch.setattr(server.tls.pairing, "_clock", lambda: later)
        early.send([side(early, code, own_identity(CLIENT).certificate).request(hello)])  # begun in time
        assert json.loads(line_from(early)) == {"error": "no-offer"}
    with pytest.raises(PairingFailed, match="no code is good there now"):
        pair(server, code)
    assert_nobody_is_paired(server)


def test_a_new_code_is_in_place_of_the_last_one(server: LocalServer) -> None:
    first, second = offered(server), offered(server)
    with pytest.raises(PairingFailed, match="the code is wrong"):
        pair(server, first)
    pair(server, second)


def test_what_was_sent_before_is_not_good_again(server: LocalServer) -> None:
    code, own = offered(server), own_identity(CLIENT).certificate
    with closing(talk(server)) as one, closing(talk(server)) as other:
        ours, replayed = side(one, code, own), line_from(other)
        request = ours.request(line_from(one))
        other.send([request])  # before it was used, to another hello
        assert replayed
        assert json.loads(line_from(other)) == {"error": "wrong-code"}
        one.send([request])
        answer = line_from(one)
        ours.check(answer)
    assert list(read_paired_clients()) == ["ann"]
    assert server.tls is not None
    server.tls.pairing.remove("ann")
    offered(server)
    with closing(talk(server)) as later:
        hello = line_from(later)
        later.send([request])
        assert json.loads(line_from(later)) == {"error": "wrong-code"}
        again = side(later, code, own)
        again.request(hello)
        with pytest.raises(PairingFailed, match="somebody may be in between"):
            again.check(answer)  # nor is the server's
    assert read_paired_clients() == {}


class InBetween:
    """Listens with a certificate of its own, and talks to the server in the clients' place.

    replaced: bytes of the client's line, and what the server gets instead.
    """

    def __init__(self, server: LocalServer, own: Identity, replaced: tuple[bytes, bytes] = (b"", b"")) -> None:
        self.replaced = replaced
        self.seen: list[bytes] = []
        self._server, self._context = server, ServerContext(own)
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        sock, _ = self._listener.accept()
        transport = SocketTransport(sock, "a client")
        with closing(transport), closing(talk(self._server)) as server:
            client = self._context.accept(transport, TIMEOUT).transport
            for source, target in ((server, client), (client, server), (server, client)):
                line = line_from(source)
                self.seen.append(line)
                target.send([line.replace(*self.replaced) + b"\n"])
            assert client.receive(1, TIMEOUT) == b""

    def close(self) -> None:
        self._thread.join(TIMEOUT)
        self._listener.close()
        assert not self._thread.is_alive()


@pytest.mark.parametrize("replaces", [False, True], ids=["passes all on", "puts its own certificate there"])
def test_who_is_in_between_is_not_paired_with_either_side(server: LocalServer, tmp_path: Path, replaces: bool) -> None:
    path = tmp_path / "between.pem"
    path.write_bytes(key_of("between") + certificate("between"))
    path.chmod(0o600)
    between = Identity(str(path), ssl.PEM_cert_to_DER_cert(certificate("between").decode()))
    own = own_identity(CLIENT).certificate
    replaced = (encoded(own), encoded(between.certificate)) if replaces else (b"", b"")
    wrong = pytest.raises(PairingFailed, match="the code is wrong, or somebody is in between")
    with closing(InBetween(server, between, replaced)) as proxy, wrong:
        pair_with(HOST, proxy.port, offered(server), "ann", TIMEOUT)
    assert len(proxy.seen) == 3
    assert encoded(own) in proxy.seen[1]
    assert_nobody_is_paired(server)


def encoded(data: bytes) -> bytes:
    from base64 import b64encode

    return b64encode(data)


def test_a_server_that_does_not_know_the_code_is_not_trusted() -> None:
    """It has answered as if it did."""
    context = ServerContext(own_identity(SERVER))
    with closing(socket.create_server((HOST, 0))) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            sock, _ = listener.accept()
            with closing(SocketTransport(sock, "a client")) as transport:
                client = context.accept(transport, TIMEOUT).transport
                ours = ServerSide(context.own.certificate, os.urandom(32))
                client.send([ours.hello()])
                ours.is_right(ours.read(line_from(client)), WRONG)
                client.send([ours.answer()])
                assert client.receive(1, TIMEOUT) == b""

        with in_thread(answer), pytest.raises(PairingFailed, match="it does not know the code: somebody may be in"):
            pair_with(HOST, port, code_of(bytes([1] * 8)), "ann", TIMEOUT)
    assert known_servers() == {}


@pytest.mark.parametrize(
    ("sent", "error", "match"),
    [
        (b"", RemoteProtocolError, "ended in the middle of the pairing"),
        (b"SSH-2.0-OpenSSH_9.2\n", RemoteProtocolError, "does not belong to a pairing"),
        (b"x" * (MAX_LINE + 1), RemoteProtocolError, "too long for a pairing"),
        (b'{"error": "\\u001b[31mrun this"}\n', PairingFailed, "it refuses, without a reason that is known here"),
    ],
    ids=["nothing", "another protocol", "no end", "a reason of its own"],
)
def test_what_else_a_server_may_send(sent: bytes, error: type[UsbipError], match: str) -> None:
    context = ServerContext(own_identity(SERVER))
    with closing(socket.create_server((HOST, 0))) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            sock, _ = listener.accept()
            with closing(SocketTransport(sock, "a client")) as transport:
                client = context.accept(transport, TIMEOUT).transport
                if sent:
                    client.send([sent])
                client.shut_down()

        with in_thread(answer), pytest.raises(error, match=match) as caught:
            pair_with(HOST, port, WRONG, "ann", TIMEOUT)
        assert f"tls://{HOST}:{port}" in str(caught.value)
        assert "\x1b" not in str(caught.value)
    assert known_servers() == {}


def test_a_server_that_is_silent_is_a_sentence() -> None:
    context = ServerContext(own_identity(SERVER))
    done = threading.Event()
    with closing(socket.create_server((HOST, 0))) as listener:

        def answer() -> None:
            sock, _ = listener.accept()
            with closing(SocketTransport(sock, "a client")) as transport:
                context.accept(transport, TIMEOUT)
                done.wait(TIMEOUT)

        with in_thread(answer):
            with pytest.raises(ServerUnreachable, match="it is silent: try again"):
                pair_with(HOST, listener.getsockname()[1], WRONG, "ann", 2.0)
            done.set()


class in_thread:  # noqa: N801  it reads as a statement
    """Runs `target` beside the block, and raises what it raises."""

    def __init__(self, target: object) -> None:
        self._error: BaseException | None = None

        def run() -> None:
            try:
                target()  # type: ignore[operator]
            except BaseException as error:  # noqa: BLE001
                self._error = error

        self._thread = threading.Thread(target=run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: object, *_: object) -> None:
        self._thread.join(TIMEOUT)
        if kind is None and self._error is not None:
            raise self._error


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="needs Linux: all of 127.0.0.0/8 is its own")
def test_who_says_nothing_keeps_nobody_else_out(server: LocalServer) -> None:
    code = offered(server)
    with ExitStack() as stack:
        ours = stack.enter_context(closing(talk(server)))
        hello = line_from(ours)
        strangers = []
        for _ in range(3 * AT_ONCE):
            strangers.append(stack.enter_context(closing(talk(server, source="127.0.0.2"))))
            assert line_from(strangers[-1])
        for given_up in strangers[: 2 * AT_ONCE]:  # the others wait for as long as a pairing may take
            assert json.loads(line_from(given_up)) == {"error": "busy"}
            assert given_up.receive(1, TIMEOUT) == b""
        own = own_identity(CLIENT).certificate
        mine = side(ours, code, own)
        ours.send([mine.request(hello)])
        mine.check(line_from(ours))
    assert list(read_paired_clients()) == ["ann"]
    wait_until("they are over", lambda: not server.clients)


def test_a_client_that_sends_slowly_has_a_deadline(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usbip_capture.serving.pairing._TIMEOUT", 0.5)
    offered(server)
    with closing(talk(server)) as stranger:
        line_from(stranger)
        stranger.send([b"{"])  # a byte now and then does not prolong it
        assert stranger.receive(1, TIMEOUT) == b""


def test_who_is_removed_loses_what_it_has(server: LocalServer, bus: FakeBus) -> None:
    """Also where others may have it without being paired: this is not the client that it was any more."""
    server.access.set("open", [])
    pair(server, offered(server))
    assert server.tls is not None
    with closing(import_device(connect_tls(HOST, port_of(server), TIMEOUT), "1-1", TIMEOUT)):
        server.tls.pairing.remove("ann")
        assert bus.plugged["1-1"].opened[-1].released.wait(TIMEOUT)
    assert kinds(server, ENDED) == ["1-1: it is not paired as ann any more"]
    assert kinds(server, UNPAIRED) == [f"ann, {own_identity(CLIENT).fingerprint}"]
    with pytest.raises(UsbipError):
        list_devices(connect_tls(HOST, port_of(server), TIMEOUT), TIMEOUT)


def test_what_another_process_removes_is_followed(server: LocalServer, bus: FakeBus) -> None:
    pair(server, offered(server))
    with closing(import_device(connect_tls(HOST, port_of(server), TIMEOUT), "1-1", TIMEOUT)):
        os.unlink(paired_clients_path())
        assert bus.plugged["1-1"].opened[-1].released.wait(TIMEOUT)
    assert server.access.paired == frozenset()


@pytest.mark.parametrize("by", ["this server", "another process"])
def test_who_is_removed_is_nobody_although_no_context_can_be_made(server: LocalServer, bus: FakeBus, by: str) -> None:
    """Somebody prepares a new certificate for the server. Who is removed is not let in by what it calls itself."""
    server.access.set("open", [])
    pair(server, offered(server))
    assert server.tls is not None
    own = Path(server.tls.context.own.path)
    with closing(import_device(connect_tls(HOST, port_of(server), TIMEOUT), "1-1", TIMEOUT)):
        own.rename(own.with_suffix(".old"))
        if by == "this server":
            server.tls.pairing.remove("ann")
        else:
            os.unlink(paired_clients_path())
        assert bus.plugged["1-1"].opened[-1].released.wait(TIMEOUT)
    assert server.access.paired == frozenset()
    assert server.tls.pairing.clients == []
    with pytest.raises(UsbipError):
        list_devices(connect_tls(HOST, port_of(server), TIMEOUT), TIMEOUT)
    assert server.tls.pairing.follow() is False
    own.with_suffix(".old").rename(own)
    assert server.tls.pairing.follow()
    pair(server, offered(server))
    with closing(import_device(connect_tls(HOST, port_of(server), TIMEOUT), "1-1", TIMEOUT)):
        assert [one.peer.identity for one in server.clients if one.busid] == ["paired:ann"]


def test_who_is_removed_is_not_the_name_in_its_certificate_either() -> None:
    """Which the old context, that stays where no new one can be made, still takes for a good one."""
    context = ServerContext(own_identity(SERVER))
    context.set_paired({"ann": own_identity(CLIENT).certificate})
    for content in (None, b"not a key"):
        Path(context.own.path).unlink(missing_ok=True)
        if content:
            Path(context.own.path).write_bytes(content)
        with pytest.raises(UsbipError, match=r"server\.pem cannot be used: .*: restore it"):
            context.set_paired({})
    ours, theirs = socket.socketpair()
    client = TlsTransport(SocketTransport(theirs, "the server"), client_context(paired=True))
    refused = pytest.raises(OSError, match="the client is not paired as ann any more")
    with (
        closing(SocketTransport(ours, "the client")) as server,
        closing(client),
        in_thread(lambda: client.handshake(TIMEOUT)),
        refused,
    ):
        context.accept(server, TIMEOUT)


def test_who_is_paired_again_with_another_certificate_is_not_who_it_was(server: LocalServer, bus: FakeBus) -> None:
    pair(server, offered(server))
    assert server.tls is not None
    other = ssl.PEM_cert_to_DER_cert(certificate("eve").decode())
    with closing(import_device(connect_tls(HOST, port_of(server), TIMEOUT), "1-1", TIMEOUT)):
        change_paired_clients(lambda clients: {"ann": clients["ann"]._replace(certificate=other)})
        assert server.tls.pairing.follow()
        assert bus.plugged["1-1"].opened[-1].released.wait(TIMEOUT)
    assert server.access.paired == {"ann"}


def test_a_removal_while_another_server_pairs_is_not_lost(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits, or fails: it does not succeed and is written over."""
    pytest.importorskip("fcntl")
    pair(server, offered(server))
    assert server.tls is not None
    code, set_paired = offered(server), server.tls.context.set_paired
    found: list[str] = []

    def other_removes(certificates: Mapping[str, bytes]) -> None:
        set_paired(certificates)
        if "bob" in certificates and not found:
            monkeypatch.setattr(folder_lock, "_TIMEOUT", 0.0)
            with pytest.raises(UsbipError) as caught:
                remove_paired_client("ann")
            found.append(str(caught.value))

    monkeypatch.setattr(server.tls.context, "set_paired", other_removes)
    own = ssl.PEM_cert_to_DER_cert(certificate("eve").decode())
    with closing(talk(server)) as transport:
        ours = side(transport, code, own, "bob")
        transport.send([ours.request(line_from(transport))])
        ours.check(line_from(transport))
    assert "another program keeps it locked: try again" in found[0]
    assert list(read_paired_clients()) == ["ann", "bob"]
    remove_paired_client("ann")
    assert list(read_paired_clients()) == ["bob"]


def test_a_name_that_the_server_has_fixed_is_not_a_choice_of_the_client(server: LocalServer) -> None:
    assert server.tls is not None
    code, _ = server.tls.pairing.offer("bob")
    with pytest.raises(PairingFailed, match="the code is for a client with another name: give the one that was"):
        pair(server, code, "ann")
    assert_nobody_is_paired(server)
    pair(server, code, "bob")
    assert server.access.paired == {"bob"}
    with pytest.raises(LocalProtocolError, match="is not a name of a client"):
        server.tls.pairing.offer("a b")


def test_a_damaged_file_lets_nobody_in(server: LocalServer, bus: FakeBus, caplog: pytest.LogCaptureFixture) -> None:
    pair(server, offered(server))
    path = Path(paired_clients_path())
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert server.tls is not None
    with caplog.at_level(logging.WARNING):
        for _ in range(3):  # it is tried again, and logged once
            assert server.tls.pairing.follow() is False
    assert len([text for text in caplog.messages if "who was paired before still is" in text]) == 1
    assert server.access.paired == {"ann"}
    with pytest.raises(FileFormatError):
        server.tls.pairing.remove("ann")
    with pytest.raises(PairingFailed, match="it cannot remember this client: its log has the reason"):
        pair(server, offered(server), "bob")
    assert path.read_bytes() == whole[:-20]
    with pytest.raises(FileFormatError, match="restore it, or move it and pair them again"):
        serve(["all"], listen=ANY, tls=ANY, bus=bus)


def test_rules_about_a_paired_client_count_in_place_of_all(server: LocalServer) -> None:
    pair(server, offered(server))
    server.access.set("closed", ["allow paired:ann 1-2"])
    assert [str(rule) for rule in server.access.in_force] == ["allow paired:ann 1-2"]
    server.access.set("closed", ["allow paired 303a:4001", "deny paired:ann 1-1"])
    assert [str(rule) for rule in server.access.in_force] == ["allow paired 303a:4001", "deny paired:ann 1-1"]
    server.access.set("closed", ["allow paired:bob 1-2"])
    assert [str(rule) for rule in server.access.in_force] == ["allow paired:bob 1-2"]  # bob may call himself ann
    server.access.set("closed", ["deny paired:bob 1-2"])
    assert [str(rule) for rule in server.access.in_force] == ["deny paired:bob 1-2", "allow paired:ann all"]


@pytest.mark.parametrize("kind", ["authority", "signed by another", "not one"])
def test_a_certificate_that_could_be_for_others_is_not_accepted(server: LocalServer, bus: FakeBus, kind: str) -> None:
    """Even of who has the code."""
    if kind == "not one":
        own = b"not a certificate"
    else:
        made = certificate("ca", ca=True) if kind == "authority" else certificate("eve", issuer="ca")
        own = ssl.PEM_cert_to_DER_cert(made.decode())
    code = offered(server)
    with closing(talk(server)) as transport:
        transport.send([side(transport, code, own).request(line_from(transport))])
        assert json.loads(line_from(transport)) == {"error": "not-accepted"}
    assert_nobody_is_paired(server)
    with serve(["all"], listen=ANY, tls=ANY, bus=bus):
        pass


def test_a_paired_certificate_lets_in_no_others(server: LocalServer, tmp_path: Path) -> None:
    """One that it has signed, although it is trusted as an authority is."""
    path = tmp_path / "eve.pem"
    own = ssl.PEM_cert_to_DER_cert(certificate("eve").decode())
    code = offered(server)
    with closing(talk(server)) as transport:
        ours = side(transport, code, own, "eve")
        transport.send([ours.request(line_from(transport))])
        ours.check(line_from(transport))
    for pem, is_let_in in (
        (key_of("eve") + certificate("eve"), True),
        (key_of("child") + certificate("child", issuer="eve") + certificate("eve"), False),
    ):
        path.write_bytes(pem)
        context = client_context()
        context.load_cert_chain(path)
        sock = socket.create_connection((HOST, port_of(server)), TIMEOUT)
        with closing(TlsTransport(SocketTransport(sock, "the server"), context)) as transport:
            try:
                transport.handshake(TIMEOUT)
                found = list_devices(transport, TIMEOUT)
            except (OSError, UsbipError):
                assert not is_let_in
            else:
                assert is_let_in
                assert [info.busid for info in found] == ["1-1"]


def test_who_is_removed_in_the_middle_of_its_handshake_is_nobody() -> None:
    """Its certificate, which was good at the beginning, may be in the name of anybody."""
    context = ServerContext(own_identity(SERVER))
    context.set_paired({"ann": own_identity(CLIENT).certificate})
    ours, theirs = socket.socketpair()

    class Slow(SocketTransport):
        def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
            context.set_paired({})
            return super().receive_into(buffer, timeout)

    client = TlsTransport(SocketTransport(theirs, "the server"), client_context(paired=True))
    refused = pytest.raises(OSError, match="the client is not paired as ann any more")
    with (
        closing(Slow(ours, "the client")) as slow,
        closing(client),
        in_thread(lambda: client.handshake(TIMEOUT)),
        refused,
    ):
        context.accept(slow, TIMEOUT)


def test_identity_of_a_client_without_a_certificate(server: LocalServer) -> None:
    pair(server, offered(server))
    wait_until("the pairing is over", lambda: not server.clients)
    with closing(open_tls(HOST, port_of(server), TIMEOUT)) as transport:
        wait_until("it is there", lambda: bool(server.clients))
        assert [one.peer for one in server.clients] == [Peer(HOST, server.clients[0].peer.port, HOST)]
        assert fingerprint(transport.certificate) == own_identity(SERVER).fingerprint
