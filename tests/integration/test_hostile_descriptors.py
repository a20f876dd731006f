"""Configurations that make no sense, before every command that goes through PyUSB: a sentence, not a traceback."""

from __future__ import annotations

import socket

import pytest

from tests.fakes.scripted_device import ScriptedDevice
from tests.fakes.scripted_server import ScriptedServer, answer_devlist
from usbip_capture.cli.main import main

INTERFACE = bytes((9, 4, 0, 0, 2, 0xFF, 0, 0, 0))
ENDPOINTS = b"".join(
    bytes((7, 5, address, kind, 0, 2, 1)) for address in (*range(1, 16), *range(0x81, 0x90)) for kind in range(4)
)


def configuration(body: bytes) -> bytes:
    total = 9 + len(body)
    return bytes((9, 2, total & 0xFF, total >> 8, 1, 1, 0, 0x80, 50)) + body


HOSTILE = {
    "descriptors without a length": configuration(INTERFACE + bytes(1000)),
    "7000 interfaces": configuration(INTERFACE * 7000),
    "each endpoint four times": configuration(INTERFACE + ENDPOINTS),
    "a number of endpoints that are not there": configuration(INTERFACE),
    "nothing": configuration(b""),
    "interfaces numbered from 200": configuration(INTERFACE.replace(b"\x04\0", b"\x04\xc8", 1)),
}
COMMANDS = {
    "selftest": ["selftest"],
    "read": ["read", "--ep", "0x81", "--timeout", "0.05"],
    "write": ["write", "--ep", "0x01", "--data-hex", "00", "--timeout", "0.05"],
    "probe": ["probe"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_one_sentence_for_each(raw: bytes, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    device = ScriptedDevice()
    device.descriptor = lambda value, usual: raw if value >> 8 == 2 else usual

    def script(sock: socket.socket) -> None:
        asked = sock.recv(4, socket.MSG_PEEK)
        (answer_devlist if asked[3:] == b"\x05" else device)(sock)

    name, *options = command
    with ScriptedServer(script) as server:
        code = main([name, f"127.0.0.1:{server.port}", *options])
    assert code in (0, 1, 6, 7)
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err
    assert output.err.count("\n") <= 3
