"""What is captured at a place of labgrid, as its coordinator has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from usbip_capture.coordinator import asking
from usbip_capture.coordinator.places import Lab, LabDevice, LabPlace
from usbip_capture.errors import DeviceNotFound, LocalProtocolError, UsbipError
from usbip_capture.extcap.places import PlaceTarget, place_target
from usbip_capture.servers.known_places import KnownPlace

TOKEN = "t0ken"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LG_COORDINATOR", "lab")
    monkeypatch.setenv("USBIP_CAPTURE_TOKEN", "for another server")
    return tmp_path


def configure(home: Path, text: str) -> None:
    path = home / "config/usbip-capture/config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(0o600)


def device(name: str = "usb", **more: Any) -> LabDevice:
    return LabDevice(
        f"lab/bench/NetworkUsbipDevice/{name}", name, **{"host": "pi", "port": 40001, "busid": "1-1", **more}
    )


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of a place `bench` as it is given."""

    def of(
        *devices: LabDevice, holder: str = "pc/ann", is_ours: bool = False, name: str = "", **more: Any
    ) -> PlaceTarget:
        lab = Lab((LabPlace("bench", holder, is_ours, devices),))
        monkeypatch.setattr(asking, "asked", lambda where: lab)
        return place_target(KnownPlace("bench", name), **more)

    return of


def test_one_s_own(target: Any) -> None:
    found = target(device(), is_ours=True)
    assert (str(found.server), found.busid, found.dashboard) == ("pi:40001", "1-1", None)
    through_ssh = target(device(host="127.0.0.1", proxy="bench-pc"), is_ours=True)
    assert str(through_ssh.server) == "ssh://bench-pc/40001"
    other = target(device(), device("uart", busid="1-2"), is_ours=True, name="uart")
    assert other.busid == "1-2"


def test_one_s_own_is_joined_if_that_is_asked_for(target: Any) -> None:
    found = target(device(dashboard="http://pi:8081"), is_ours=True, token=TOKEN, joins=True)
    assert (found.dashboard.address, found.dashboard.token) == ("http://pi:8081", TOKEN)
    with pytest.raises(UsbipError, match=r"^no token is known for http://pi:8081"):
        target(device(dashboard="http://pi:8081"), is_ours=True, joins=True)


@pytest.mark.parametrize(
    ("host", "dashboard", "address"),
    [
        ("pi", "", "http://pi:8080"),
        ("tls://pi", "", "https://pi:8080"),
        ("ssh://me@pi", "", "ssh://me@pi/8080"),
        ("pi", "https://pi:9000", "https://pi:9000"),
    ],
)
def test_somebody_else_s_is_joined_by_a_token_for_the_address(
    host: str, dashboard: str, address: str, target: Any, home: Path
) -> None:
    configure(home, f'[tokens]\n"{address}" = "{TOKEN}"\n')
    found = target(device(host=host, dashboard=dashboard))
    assert (found.dashboard.address, found.dashboard.token) == (address, TOKEN)


def test_a_token_is_sent_only_where_its_user_has_it_for(target: Any, home: Path) -> None:
    """Neither that of the environment, nor that of a name: anybody writes hosts into a coordinator."""
    configure(home, '[servers]\npi = "192.0.2.10"\n\n[tokens]\npi = "t0ken"\n"http://evil:8080" = "no"\n')
    assert target(device(host="pi")).dashboard.address == "http://192.0.2.10:8080"
    for wrong in (device(host="192.0.2.66"), device(host="pi", dashboard="http://192.0.2.66:8080")):
        with pytest.raises(
            UsbipError, match=r"^place bench is held by pc/ann; to join .*: no token is known for http://192"
        ):
            target(wrong)


@pytest.mark.parametrize(
    ("devices", "more", "sentence"),
    [
        ([device()], {"holder": ""}, r"nobody's now: acquire it \(labgrid-client -p bench acquire\)"),
        ([device(), device("uart")], {}, "bench has usb, uart: name one of its devices, as in 'place:bench, NAME'"),
        ([device()], {"name": "x"}, "bench has usb: name one of its devices"),
        ([device(port=None)], {"is_ours": True}, "held by pc/ann, but its device 1-1 is not lent: is it plugged in"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    devices: list[LabDevice], more: dict[str, Any], sentence: str, target: Any
) -> None:
    with pytest.raises(UsbipError, match=sentence):
        target(*devices, **more)


def test_no_such_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "asked", lambda where: Lab((LabPlace("a", "", False, (device(),)),)))
    with pytest.raises(DeviceNotFound, match="coordinator at lab has no place b with a USB/IP device: it has a"):
        place_target(KnownPlace("b"))
    monkeypatch.delenv("LG_COORDINATOR")
    with pytest.raises(
        LocalProtocolError, match=r"set LG_COORDINATOR, or write coordinator = \"HOST\" under \[labgrid\]"
    ):
        place_target(KnownPlace("b"))
