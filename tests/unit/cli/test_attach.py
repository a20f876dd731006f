"""`attach`, `detach` and `attached`, with a real server and a simulated vhci-hcd."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from tests.fakes.simulated_vhci import SimulatedVhci
from usbip_capture.cli.main import main
from usbip_capture.demo.device import BUSID, DemoServer
from usbip_capture.vhci import automatic, controller, records
from usbip_capture.vhci.automatic import AutoAttach


@pytest.fixture
def where() -> Iterator[str]:
    with closing(DemoServer()) as server:
        yield f"127.0.0.1:{server.listen('127.0.0.1', 0)[1]}"


@pytest.fixture
def vhci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedVhci]:
    with closing(SimulatedVhci(tmp_path / "sys")) as vhci:
        monkeypatch.setattr(controller, "Vhci", lambda: vhci)
        monkeypatch.setattr(records, "FOLDER", str(tmp_path / "records"))
        local = tmp_path / "sys/bus/usb/devices/3-1"
        local.mkdir(parents=True)
        for name, text in (("idVendor", "1209"), ("idProduct", "0001"), ("product", "Demo \x1b[2J"), ("serial", "7")):
            (local / name).write_text(f"{text}\n")
        yield vhci


def test_there_and_back(where: str, vhci: SimulatedVhci, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attached"]) == 0
    assert capsys.readouterr() == ("", "usbip-capture: nothing is attached\n")
    assert main(["attach", where, BUSID]) == 0
    assert capsys.readouterr() == (f"{BUSID} of {where} is attached at port 0, as 3-1\n", "")
    assert main(["attached"]) == 0
    assert capsys.readouterr().out == f"port 0: 3-1  1209:0001  Demo \\x1b[2J, 7  from {BUSID} of {where}\n"
    assert main(["attached", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["port"], found["local_busid"], found["host"], found["busid"]) == (0, "3-1", "127.0.0.1", BUSID)
    assert (found["idVendor"], found["manufacturer"]) == ("1209", None)
    assert main(["detach", BUSID]) == 0
    assert capsys.readouterr().out == f"{BUSID} of {where} is detached from port 0\n"
    assert main(["detach", "all"]) == 0
    assert capsys.readouterr().out == "nothing is attached\n"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["detach", "0"], 4, "nothing that is attached is called 0: nothing is attached"),
        (["attach", "demo"], 2, "run usbip-capture demo, and attach from 127.0.0.1"),
        (["attach", "127.0.0.1:1", "1-1"], 3, "nothing listens on 127.0.0.1 port 1"),
        (["attach", "pi", "1:2:"], 2, "'1:2:' is not a device"),
        (["attach"], 2, "no server given"),
    ],
)
def test_sentences(
    arguments: list[str], code: int, sentence: str, vhci: SimulatedVhci, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert sentence in capsys.readouterr().err


def test_a_record_that_cannot_be_written(
    where: str, vhci: SimulatedVhci, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(records, "FOLDER", "/dev/null/vhci_hcd")
    assert main(["attach", where]) == 0
    assert "`attached` will not name it" in capsys.readouterr().err


def test_auto_until_ctrl_c(
    where: str, vhci: SimulatedVhci, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(auto: AutoAttach, attachment: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(AutoAttach, "_watch", interrupted)
    monkeypatch.setattr(automatic, "announcements", lambda server, wake: nullcontext())
    assert main(["attach", where, "--auto"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{BUSID} of {where} is attached at port 0, as 3-1\n"
    assert "stays attached: sudo usbip-capture detach 0 ends that" in err
