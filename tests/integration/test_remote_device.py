"""`devices.remote` and `hosts` over real sockets, with servers that do what good servers never do."""

from __future__ import annotations

import random
import socket
import threading

import pytest

from tests.fakes.scripted_server import (
    INFO,
    Script,
    ScriptedServer,
    answer_devlist,
    answer_import,
    read_exactly,
    read_request,
    ret_submit,
    ret_unlink,
)
from usbip_capture.device import Transfer
from usbip_capture.devices import remote
from usbip_capture.devices.remote import RemoteDevice
from usbip_capture.errors import DeviceNotFound, ImportRefused, RemoteProtocolError, ServerUnreachable, UsbipError
from usbip_capture.net.transport import SocketTransport
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.usb.status import ECONNRESET, ESHUTDOWN
from usbip_capture.usb.urb import Buffer, Completion, IsoPacket, TransferType, Urb
from usbip_capture.wire import structs

SETUP = bytes.fromhex("8006000100001200")


def bulk_in(length: int = 64, endpoint: int = 0x81) -> Urb:
    return Urb(TransferType.BULK, endpoint, length)


def attach(server: ScriptedServer) -> RemoteDevice:
    device = ServerAddress("127.0.0.1", server.port, 2.0).import_device(Selector("1-1"))
    assert isinstance(device, RemoteDevice)
    return device


def echo_lengths(sock: socket.socket) -> None:
    """Answer each request with as many bytes as it asks for, and unlinks as for finished URBs."""
    answer_import(sock)
    while True:
        command, seqnum, direction, length = read_request(sock)
        if command == structs.USBIP_CMD_UNLINK:
            sock.sendall(ret_unlink(seqnum, 0))
        elif direction:
            sock.sendall(ret_submit(seqnum, 0, length, b"\x55" * length))
        else:
            read_exactly(sock, length)
            sock.sendall(ret_submit(seqnum, 0, length))


def never_answer(sock: socket.socket) -> None:
    answer_import(sock)
    while sock.recv(4096):
        pass


def test_round_trips_of_every_size() -> None:
    with ScriptedServer(echo_lengths) as server:
        device = attach(server)
        assert bytes(device.run(Urb.control(SETUP), 5).data) == b"\x55" * 18
        for size in (0, 1, 511, 4096, 70_000, 1 << 20):
            completion = device.run(bulk_in(size), 5)
            assert (completion.status, bytes(completion.data)) == (0, b"\x55" * size)
            assert device.run(Urb(TransferType.BULK, 0x02, size, bytes(size)), 5).actual_length == size
        device.close()


def test_many_threads_share_one_connection() -> None:
    with ScriptedServer(echo_lengths) as server:
        device = attach(server)
        good: list[int] = []

        def work(endpoint: int) -> None:
            count = sum(len(device.run(bulk_in(endpoint, 0x80 | endpoint), 10).data) == endpoint for _ in range(300))
            good.append(count)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert good == [300] * 15
        device.close()


def test_transfers_that_nobody_awaits_finish_too() -> None:
    with ScriptedServer(echo_lengths) as server:
        device = attach(server)
        done = threading.Semaphore(0)
        left = [500]

        def again(completion: Completion) -> None:
            left[0] -= 1
            if left[0] > 0:
                device.submit(Transfer(bulk_in(), again))
            else:
                done.release()

        device.submit(Transfer(bulk_in(), again))
        for _ in range(100):  # meanwhile another thread does round trips of its own
            assert device.run(Urb.control(SETUP), 5).status == 0
        assert done.acquire(timeout=20)
        device.close()


def test_a_time_out_takes_the_urb_back() -> None:
    def script(sock: socket.socket) -> None:
        answer_import(sock)
        read_request(sock)
        _, seqnum, _, target = read_request(sock)
        assert target == 1
        sock.sendall(ret_unlink(seqnum, -ECONNRESET))
        _, seqnum, _, _ = read_request(sock)
        sock.sendall(ret_submit(seqnum, 0, 1, b"x"))
        sock.recv(1)

    with ScriptedServer(script) as server:
        device = attach(server)
        assert device.run(bulk_in(), 0.02).status == -ECONNRESET
        assert bytes(device.run(bulk_in(), 5).data) == b"x"
        device.close()


def test_a_server_that_never_answers_unlink_is_not_waited_for() -> None:
    with ScriptedServer(never_answer) as server:
        device = attach(server)
        assert device.run(bulk_in(), 0.02, grace=0.02).status == -ECONNRESET
        device.close()


LOSSES = {
    "at once": b"",
    "in mid-header": ret_submit(1, 0, 8, b"12345678")[:20],
    "in mid-data": ret_submit(1, 0, 8, b"12345678")[:50],
    "too long": ret_submit(1, 0, 65, bytes(65)),
    "2 GiB": ret_submit(1, 0, 0x7FFFFFFF),
    "negative": ret_submit(1, 0, -5),
    "garbage": random.Random(7).randbytes(4096),
}


@pytest.mark.parametrize("last_words", LOSSES.values(), ids=LOSSES.keys())
def test_a_lost_connection_fails_all_that_waits(last_words: bytes) -> None:
    def script(sock: socket.socket) -> None:
        answer_import(sock)
        for _ in range(3):
            read_request(sock)
        sock.sendall(last_words)

    with ScriptedServer(script) as server:
        device = attach(server)
        reasons: list[str] = []
        finished: list[int] = []
        device.watch(reasons.append)
        transfers = [Transfer(bulk_in()), Transfer(bulk_in(), lambda c: finished.append(c.status))]
        for transfer in transfers:
            device.submit(transfer)
        assert device.run(bulk_in(), 10).status == -ESHUTDOWN
        assert all(device.wait(t, 10) for t in transfers)
        assert finished == [-ESHUTDOWN]
        assert device.lost is not None
        assert "127.0.0.1" in device.lost
        assert device.run(Urb.control(SETUP), 10).status == -ESHUTDOWN  # later ones at once
        device.close()
        assert reasons == [device.lost]


@pytest.mark.parametrize("stray", [ret_unlink(212, -104), structs.OP_COMMON.pack(0x0111, 3, 0) + bytes(312)])
def test_a_server_that_answers_an_earlier_connection_is_asked_again(stray: bytes) -> None:
    """As usbip-vudc does: its queue of replies outlives the connection; the device is in use for a moment then."""

    def wrong(sock: socket.socket) -> None:
        read_exactly(sock, 40)
        sock.sendall(stray)

    def busy(sock: socket.socket) -> None:
        read_exactly(sock, 40)
        sock.sendall(structs.OP_COMMON.pack(0x0111, structs.OP_REP_IMPORT, structs.OpStatus.DEV_BUSY))

    with ScriptedServer(wrong, wrong, busy, answer_import) as server:
        device = ServerAddress("127.0.0.1", server.port).import_device(Selector(busid="1-1"))
        assert device.info.busid == "1-1"
        device.close()
    always = pytest.raises(RemoteProtocolError, match=r"earlier connection|sent device ''")
    with ScriptedServer(wrong) as server, always:
        ServerAddress("127.0.0.1", server.port).import_device(Selector(busid="1-1"))


def test_close_awaits_the_answers_to_its_unlinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that none is left for the next connection; what was unlinked before is answered too."""
    monkeypatch.setattr(remote, "_UNLINK_PATIENCE", 20.0)  # however busy this machine is
    answered: list[int] = []
    unlinks = threading.Semaphore(0)

    def script(sock: socket.socket) -> None:
        answer_import(sock)
        wanted = []
        while True:
            command, seqnum, _, _ = read_request(sock)
            if command == structs.USBIP_CMD_UNLINK:
                wanted.append(seqnum)
                if len(wanted) == 4:  # all at once, when there are no more to come
                    sock.sendall(b"".join(ret_unlink(number, -104) for number in wanted))
                    answered.extend(wanted)
                    unlinks.release()

    with ScriptedServer(script) as server:
        device = attach(server)
        waiting = Transfer(bulk_in())
        finished: list[int] = []
        device.watch(lambda reason: finished.append(0))
        transfers = [Transfer(bulk_in(), lambda done: finished.append(done.status)) for _ in range(3)]
        for transfer in (*transfers, waiting):
            device.submit(transfer)
        device.cancel(transfers[0])
        messages: list[bytes] = []
        device.on_unlink = lambda message, transfer: messages.append(message)
        device.close()
        assert unlinks.acquire(timeout=10)
        assert len(answered) == 4
        assert [int.from_bytes(message[:4], "big") for message in messages] == [2, 2, 2, 4, 4, 4, 4]
        assert finished == [-ECONNRESET] * 3
        assert waiting.completion is not None
        assert waiting.completion.status == -ECONNRESET
        late = Transfer(bulk_in())
        device.submit(late)
        assert late.completion is not None
        assert late.completion.status == -ESHUTDOWN


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_no_unlink_overtakes_what_it_unlinks(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[int] = []
    enough, sending, goes_on = threading.Event(), threading.Event(), threading.Event()

    def script(sock: socket.socket) -> None:
        answer_import(sock)
        while True:
            command, seqnum, _, _ = read_request(sock)
            commands.append(command)
            if len(commands) == 2:
                enough.set()
            if command == structs.USBIP_CMD_UNLINK:
                sock.sendall(ret_unlink(seqnum, -104))

    send = SocketTransport.send

    def slow(transport: SocketTransport, parts: list[Buffer]) -> None:
        sending.set()
        goes_on.wait(0.05)
        send(transport, parts)

    monkeypatch.setattr(remote, "_UNLINK_PATIENCE", 20.0)
    with ScriptedServer(script) as server:
        device = attach(server)
        transfer = Transfer(bulk_in())
        monkeypatch.setattr(SocketTransport, "send", slow)
        submits = threading.Thread(target=device.submit, args=[transfer])
        submits.start()
        assert sending.wait(10)
        if end == "cancel":
            device.cancel(transfer)
        else:
            device.close()
        submits.join(10)
        assert enough.wait(10)
        assert commands[:2] == [structs.USBIP_CMD_SUBMIT, structs.USBIP_CMD_UNLINK]
        device.close()


def test_close_finishes_all_and_leaves_no_thread() -> None:
    before = threading.active_count()
    with ScriptedServer(never_answer) as server:
        device = attach(server)
        waiting = Transfer(bulk_in())
        device.submit(waiting)
        device.submit(Transfer(bulk_in(), lambda completion: None))
        closer = threading.Thread(target=device.close)
        closer.start()
        assert device.wait(waiting, 10)
        assert waiting.completion is not None
        assert waiting.completion.status == -ECONNRESET
        closer.join(10)
        device.close()
        assert "released" in (device.lost or "")
    assert threading.active_count() <= before + 2  # the scripted server's own


def answer(words: bytes) -> Script:
    """A server that answers any request with these bytes."""

    def script(sock: socket.socket) -> None:
        read_exactly(sock, 8)
        sock.sendall(words)

    return script


def stay_silent(sock: socket.socket) -> None:
    while sock.recv(4096):
        pass


BAD_SERVERS = {
    "random bytes": (answer(random.Random(3).randbytes(400)), "not a USB/IP server"),
    "web server": (answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "'HTTP/1.1'"),
    "closes at once": (answer(b""), "closed the connection|broke off"),
    "silent": (stay_silent, "does not answer within"),
    "four billion devices": (answer(structs.OP_COMMON.pack(0x111, 5, 0) + b"\xff\xff\xff\xff"), "4294967295 devices"),
    "version 2": (answer(structs.OP_COMMON.pack(0x200, 5, 0)), "not a USB/IP server"),
}


@pytest.mark.parametrize(("script", "words"), BAD_SERVERS.values(), ids=BAD_SERVERS.keys())
def test_listing_bad_servers_gives_a_sentence_that_names_the_server(script: Script, words: str) -> None:
    with ScriptedServer(script) as server, pytest.raises(UsbipError, match=words) as caught:
        ServerAddress("127.0.0.1", server.port, 0.3).devices()
    assert f"127.0.0.1:{server.port}" in str(caught.value)


def test_unreachable_servers() -> None:
    with pytest.raises(ServerUnreachable, match="no-such-host"):
        ServerAddress("no-such-host.invalid", timeout=5).devices()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ServerUnreachable, match=f"port {port}"):
        ServerAddress("127.0.0.1", port).devices()


def refuse(status: int) -> Script:
    def script(sock: socket.socket) -> None:
        read_exactly(sock, 40)
        sock.sendall(structs.OP_COMMON.pack(0x111, structs.OP_REP_IMPORT, status))

    return script


@pytest.mark.parametrize(
    ("status", "words"),
    [(1, "refused"), (2, "in use by another client; end that client"), (3, "bind the device again"), (77, "status 77")],
)
def test_refused_imports_come_with_advice(status: int, words: str) -> None:
    with ScriptedServer(refuse(status)) as server, pytest.raises(ImportRefused, match=words):
        attach(server)


def test_unknown_busid_lists_what_there_is() -> None:
    words = r"no such device; it exports 1-1 \(1209:0001\)"
    with ScriptedServer(refuse(4), answer_devlist) as server, pytest.raises(ImportRefused, match=words):
        attach(server)


def test_choosing_a_device() -> None:
    with ScriptedServer(answer_devlist) as server:
        place = ServerAddress("127.0.0.1", server.port)
        assert place.find(Selector()) == INFO
        assert place.find(Selector.parse("1209:1")) == INFO
        with pytest.raises(DeviceNotFound, match=r"no device 303a:4004 .*1-1 \(1209:0001\)"):
            place.find(Selector.parse("303A:4004"))


def test_wrong_version_in_an_import() -> None:
    def script(sock: socket.socket) -> None:
        read_exactly(sock, 40)
        sock.sendall(structs.OP_COMMON.pack(0x0199, structs.OP_REP_IMPORT, 0))

    with ScriptedServer(script) as server, pytest.raises(RemoteProtocolError, match=r"version 1\.9\.9"):
        attach(server)


def test_a_reply_that_cannot_be_fails_its_urb_too() -> None:
    packets = [IsoPacket(0, 100)]
    urb = Urb(TransferType.ISOCHRONOUS, 0x83, 100, packets=packets)

    def script(sock: socket.socket) -> None:
        answer_import(sock)
        _, seqnum, _, _ = read_request(sock)
        read_exactly(sock, 16)
        reply = structs.RET_SUBMIT.pack(structs.USBIP_RET_SUBMIT, seqnum, 0, 0, 0, 0, 5, 0, 1, 0)
        sock.sendall(reply + bytes(5) + structs.pack_iso([IsoPacket(0, 100, 3, 0)]))
        read_exactly(sock, 1)

    with ScriptedServer(script) as server:
        device = attach(server)
        completion = device.run(urb, 10)
        assert completion.status == -ESHUTDOWN
        assert device.lost is not None
        assert "do not add up" in device.lost
        device.close()


def test_a_callback_that_raises_does_not_hold_up_who_waits() -> None:
    def broken(completion: Completion) -> None:
        raise RuntimeError("a fault of the caller")

    with ScriptedServer(echo_lengths) as server:
        device = attach(server)
        transfer = Transfer(bulk_in(), broken, awaited=True)
        device.submit(transfer)
        assert device.wait(transfer, 10)
        device.close()


@pytest.mark.parametrize(
    ("host", "port", "where"),
    [("pi:3241", 3240, ("pi", 3241)), ("[::1]", 9, ("::1", 9)), (" DEMO ", 1, ("demo", 1)), ("::1", 7, ("::1", 7))],
)
def test_addresses_as_people_write_them(host: str, port: int, where: tuple[str, int]) -> None:
    server = ServerAddress.parse(host, port)
    assert (server.host, server.port) == where


@pytest.mark.parametrize(("host", "port"), [("", 3240), ("pi", 0), ("pi", 65536), ("pi:port", 3240), ("[::1", 3240)])
def test_addresses_that_are_none(host: str, port: int) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        ServerAddress.parse(host, port)


def test_interrupted_in_the_middle_of_a_reply_all_that_waits_fails() -> None:
    def interrupted(completion: Completion) -> None:
        raise KeyboardInterrupt  # as it may come at any place

    with ScriptedServer(answer_all_at_once) as server:
        device = attach(server)
        other, first = Transfer(bulk_in()), Transfer(bulk_in(), interrupted, awaited=True)
        device.submit(first)
        device.submit(other)
        with pytest.raises(KeyboardInterrupt):
            device.wait(first, 5)
        assert device.wait(other, 5)
        assert other.completion is not None
        assert other.completion.status == -ESHUTDOWN
        assert "was interrupted" in device.loss
        device.close()


def answer_all_at_once(sock: socket.socket) -> None:
    """Two replies in one piece."""
    answer_import(sock)
    seqnums = [read_request(sock)[1] for _ in range(2)]
    sock.sendall(b"".join(ret_submit(seqnum, 0, 0) for seqnum in seqnums))
    while sock.recv(4096):
        pass
