"""`records.upper_pdu`: packed as in the format's description, and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.records.upper_pdu import UDP, Flow, UpperPdu, pack_head, pack_remark, parse_upper_pdu

FLOW = Flow("192.0.2.10", 514, "192.0.2.1", 1514)


def test_bytes_of_a_syslog_message() -> None:
    assert pack_head("syslog", FLOW) == bytes.fromhex(
        "000c0008 7379736c6f670000 00140004 c000020a 00150004 c0000201"
        "00180004 00000002 00190004 00000202 001a0004 000005ea 00000000"
    )


def test_bytes_without_addresses() -> None:
    assert pack_remark("x") == bytes.fromhex("000c0008 7379736c6f670000 00000000") + b"<133>x"


@pytest.mark.parametrize(
    "flow", [None, FLOW, Flow("2001:db8::10", 514, "2001:db8::1", 65535, UDP), Flow("192.0.2.10", 1, "2001:db8::1", 2)]
)
def test_read_back(flow: Flow | None) -> None:
    assert parse_upper_pdu(pack_head("syslog", flow) + b"text") == UpperPdu("syslog", flow, b"text")


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    parse_upper_pdu(data)
    for size in range(len(pack_head("syslog", FLOW))):
        assert parse_upper_pdu(pack_head("syslog", FLOW)[:size]) is None
