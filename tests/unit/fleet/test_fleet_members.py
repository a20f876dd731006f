"""Which servers a fleet has, and where each is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from usbip_capture.errors import LocalProtocolError
from usbip_capture.fleet import members as fleet
from usbip_capture.fleet.members import Directory, Member, announced_members, together
from usbip_capture.servers import configuration, mdns
from usbip_capture.servers.dashboards import TOKEN_VARIABLE
from usbip_capture.servers.mdns import DiscoveredServer

CONFIGURATION = """\
[servers]
pi = "192.0.2.10"
bench = "192.0.2.11:3241"
rack = "tls://192.0.2.12"

[dashboards]
pi = "http://192.0.2.10:8080"
alone = "https://192.0.2.13:8443"
poor = "http://192.0.2.14:8080"

[tokens]
pi = "token-of-pi"
rack = "token-of-rack"
alone = "token-of-alone"
"http://192.0.2.20:8080" = "token-by-address"
"""


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    path = tmp_path / "usbip-capture" / "config.toml"
    path.parent.mkdir()
    path.write_text(CONFIGURATION)
    path.chmod(0o600)


def places(member: Member) -> tuple[str, str, str]:
    """Of USB/IP, of the dashboard, and the token."""
    dashboard = member.dashboard
    server = "" if member.server is None else str(member.server)
    return server, dashboard.address if dashboard else "", dashboard.token if dashboard else ""


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("pi", ("192.0.2.10", "http://192.0.2.10:8080", "token-of-pi")),
        ("PI", ("192.0.2.10", "http://192.0.2.10:8080", "token-of-pi")),
        ("bench", ("192.0.2.11:3241", "", "")),
        ("rack", ("tls://192.0.2.12", "https://192.0.2.12:8080", "token-of-rack")),
        ("alone", ("", "https://192.0.2.13:8443", "token-of-alone")),
        ("http://192.0.2.20:8080", ("", "http://192.0.2.20:8080", "token-by-address")),
        ("192.0.2.10", ("192.0.2.10", "", "")),
        ("demo", ("demo", "", "")),
    ],
)
def test_what_a_word_means(word: str, expected: tuple[str, str, str]) -> None:
    assert places(Directory().member(word)) == expected


def test_a_token_of_the_environment_is_for_what_a_person_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "of-the-environment")
    assert places(Directory().member("http://192.0.2.99:8080"))[2] == "of-the-environment"
    assert places(Directory().member("192.0.2.99"))[1] == ""  # nobody has said that it has a dashboard


def test_a_dashboard_without_a_token_is_a_problem_of_its_own() -> None:
    member = Directory().member("poor")
    assert "no token is known for poor" in str(member.problem)
    assert member.dashboard is None


@pytest.mark.parametrize("word", ["", "http://", "x:99999"])
def test_what_is_not_an_address_is_one_sentence(word: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        Directory().member(word)
    assert "\n" not in str(caught.value)


def test_all_that_are_configured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USBIP_CAPTURE_SERVERS", "192.0.2.77, lab=192.0.2.78")
    assert [member.name for member in Directory().members()] == [
        "192.0.2.77", "lab", "pi", "bench", "rack", "alone", "poor",
    ]  # fmt: skip


def test_announced_ones_get_only_tokens_of_their_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "of-the-environment")
    found = [
        DiscoveredServer("pi", "192.0.2.30", 3240, ("192.0.2.30",), {"web": "8080"}),
        DiscoveredServer("ours", "192.0.2.20", 3240, ("192.0.2.20",), {"web": "8080"}),
    ]
    monkeypatch.setattr(mdns, "discover_usbip_servers", lambda seconds: found)
    stranger, ours = announced_members(1.0)
    assert places(stranger) == ("192.0.2.30", "", "")
    assert places(ours) == ("192.0.2.20", "http://192.0.2.20:8080", "token-by-address")
    assert (ours.key, ours.address, ours.announced) == ("announced ours", "192.0.2.20", True)


def test_each_server_once_by_where_it_is() -> None:
    first, again = Directory().member("pi"), Directory().member("192.0.2.10")
    assert together([first, again, Directory().member("bench")]) == [first, Directory().member("bench")]


def test_ssh_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    from usbip_capture.net import ssh

    called: list[bool] = []
    monkeypatch.setattr(ssh, "never_ask", lambda: called.append(True))
    fleet.never_asks([Directory().member("pi")])
    assert not called
    fleet.never_asks([Directory().member("pi"), Directory().member("ssh://192.0.2.10")])
    assert called


@pytest.mark.parametrize("extra", ["", "[other]\nx = 1\n"])
def test_the_configuration_is_read_once_for_all(extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """200 servers cost 200 times what one costs, whatever else is in the file."""
    rows = range(200)
    (tmp_path / "usbip-capture" / "config.toml").write_text(
        "[servers]\n" + "".join(f's{at} = "192.0.2.1:{at + 1}"\n' for at in rows)
        + "[dashboards]\n" + "".join(f's{at} = "192.0.2.1:{at + 1000}"\n' for at in rows)
        + "[tokens]\n" + "".join(f's{at} = "t{at}"\n' for at in rows) + extra
    )  # fmt: skip
    read: list[str] = []
    lines = configuration.read_lines

    def counted(text: str, wanted: str) -> list[tuple[str, str]] | None:
        read.append(wanted)
        return lines(text, wanted)

    monkeypatch.setattr(configuration, "read_lines", counted)
    found = Directory().members()
    assert len(found) == 200
    assert places(found[7]) == ("192.0.2.1:8", "http://192.0.2.1:1007", "t7")
    assert sorted(read) == ["dashboards", "servers", "tokens"]
