"""The file of paired clients: kept whole or refused, never read as if nothing were wrong."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from usbip_capture.errors import FileFormatError, LocalProtocolError, UsbipError
from usbip_capture.system.folders import configuration_folder
from usbip_capture.tls import paired_clients
from usbip_capture.tls.paired_clients import (
    PairedClient,
    change_paired_clients,
    paired_clients_path,
    read_paired_clients,
    remove_paired_client,
    with_client,
)
from usbip_capture.tls.pairing import NAME_TAKEN, PAIRED_ALREADY, PairingFailed

ANN = PairedClient("ann", b"a certificate" * 30, 1_800_000_000)
BOB = PairedClient("bob", b"another", 1_800_000_001)


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paired_clients, "configuration_folder", lambda: str(tmp_path / "configuration"))
    return Path(paired_clients_path())


def write(*clients: PairedClient) -> None:
    change_paired_clients(lambda found: {client.name: client for client in clients})


def test_it_is_beside_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert os.path.dirname(paired_clients_path()) == configuration_folder()


def test_what_is_written_is_read(path: Path) -> None:
    assert read_paired_clients() == {}
    write(ANN, BOB)
    assert list(read_paired_clients().values()) == [ANN, BOB]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [name for name in os.listdir(path.parent) if name != path.name] == []
    assert remove_paired_client("ann") == ANN
    assert list(read_paired_clients()) == ["bob"]
    with pytest.raises(LocalProtocolError, match="no client called 'ann' is paired: there is bob"):
        remove_paired_client("ann")


def test_a_file_that_is_cut_anywhere_is_a_sentence(path: Path) -> None:
    write(ANN, BOB)
    whole = path.read_bytes()
    for cut in range(len(whole) - 1):  # the line end after the whole of it does not count
        path.write_bytes(whole[:cut])
        for take in (read_paired_clients, lambda: remove_paired_client("bob")):
            with pytest.raises(FileFormatError, match=r"paired_clients\.json.*: restore it, or move it and pair"):
                take()
        assert path.read_bytes() == whole[:cut]
    path.write_bytes(whole[:-1])
    assert list(read_paired_clients()) == ["ann", "bob"]


@pytest.mark.parametrize(
    "content",
    [
        "null", "[]", "{}", '{"clients": {}}', '{"clients": null}', '{"clients": "ann"}', '{"clients": [null]}',
        '{"clients": [{"name": "ann"}]}', '{"clients": [[]]}', "\0" * 100, "[" * 100_000, '{"clients": [1]}',
    ],
)  # fmt: skip
def test_anything_else_is_a_sentence(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(FileFormatError, match="does not hold the clients that were paired"):
        read_paired_clients()


@pytest.mark.parametrize("change", [
    {"name": "a b"}, {"name": ""}, {"name": 1}, {"name": "bob"}, {"certificate": "?"}, {"certificate": ""},
    {"certificate": 7}, {"since": "today"}, {"since": True}, {"since": None}, {"since": 1e999},
])  # fmt: skip
def test_a_field_that_cannot_be_is_a_sentence(path: Path, change: dict[str, object]) -> None:
    write(ANN, BOB)
    found = json.loads(path.read_bytes())
    found["clients"][0].update(change)
    path.write_text(json.dumps(found))
    with pytest.raises(FileFormatError):
        read_paired_clients()


def test_a_file_that_cannot_be_read_is_a_sentence(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(UsbipError, match="cannot be read"):
        read_paired_clients()


def test_a_failure_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(ANN)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(UsbipError, match="cannot be written: No space left on device"):
        write(ANN, BOB)
    assert list(read_paired_clients()) == ["ann"]
    assert os.listdir(path.parent) == [path.name]


def test_a_name_is_for_one_certificate_and_a_certificate_has_one_name() -> None:
    clients = {"ann": ANN}
    assert with_client(clients, BOB) == {"ann": ANN, "bob": BOB}
    later = ANN._replace(since=ANN.since + 1)
    assert with_client(clients, later) == {"ann": later}
    for client, reason in ((BOB._replace(name="ann"), NAME_TAKEN), (ANN._replace(name="eve"), PAIRED_ALREADY)):
        with pytest.raises(PairingFailed) as caught:
            with_client(clients, client)
        assert caught.value.reason == reason
    assert clients == {"ann": ANN}
