"""The grammar of usbip:// URLs: each part, right and wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbip_capture.errors import LocalProtocolError
from usbip_capture.serial_port.url import PortUrl, url_of
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.servers.patience import TIMEOUT_VARIABLE


@pytest.fixture(autouse=True)
def _usual_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TIMEOUT_VARIABLE)


def test_the_shortest_url_names_the_only_device() -> None:
    url = PortUrl.parse("usbip://pi")
    assert url == PortUrl(ServerAddress("pi"), Selector())
    assert PortUrl.parse("usbip://pi/") == url


@pytest.mark.parametrize(
    ("text", "server", "selector"),
    [
        ("usbip://192.168.1.20/1-2.3", ServerAddress("192.168.1.20"), Selector(busid="1-2.3")),
        ("usbip://pi:3241/303a:1001", ServerAddress("pi", 3241), Selector(vid_pid=(0x303A, 0x1001))),
        ("USBIP://[fe80::1]:99/1-1/", ServerAddress("fe80::1", 99), Selector(busid="1-1")),
        ("usbip://[::1]/1-1", ServerAddress("::1"), Selector(busid="1-1")),
        ("usbip://[fe80::1%25eth0]/1-1", ServerAddress("fe80::1%eth0"), Selector(busid="1-1")),
        ("usbip://demo/1-1", ServerAddress("demo"), Selector(busid="1-1")),
    ],
)
def test_servers_and_devices(text: str, server: ServerAddress, selector: Selector) -> None:
    url = PortUrl.parse(text)
    assert (url.server, url.selector) == (server, selector)


@pytest.mark.parametrize(
    ("text", "file", "selector"),
    [
        ("usbip://replay:/tmp/a.pcapng/1-1", "/tmp/a.pcapng", Selector(busid="1-1")),
        ("usbip://replay:/tmp/a.pcapng", "/tmp/a.pcapng", Selector()),
        ("usbip://replay:/tmp/a/", "/tmp/a", Selector()),
        ("usbip://replay:/tmp/a%20b.pcap.gz/0403:6001", "/tmp/a b.pcap.gz", Selector(vid_pid=(0x0403, 0x6001))),
        ("usbip://replay:%2Ftmp%2Fa.pcapng/1-1", "/tmp/a.pcapng", Selector(busid="1-1")),
    ],
)
def test_a_recording_in_a_folder(text: str, file: str, selector: Selector) -> None:
    url = PortUrl.parse(text)
    assert (url.server, url.selector) == (ServerAddress.parse(f"replay:{file}"), selector)
    assert url_of(url.server) == (f"replay:{file}".replace("/", "%2F").replace(" ", "%20"), [])


def test_all_parameters() -> None:
    url = PortUrl.parse(
        "usbip://pi/0403:6001?serial=A%201&interface=2&instance=1&pcap=/tmp/a+b%26c.pcapng&syslog=1&reconnect=10"
        "&logging=DEBUG"
    )
    assert (url.serial, url.interface, url.instance) == ("A 1", 2, 1)
    assert (url.pcap, url.syslog, url.reconnect, url.logging) == ("/tmp/a+b&c.pcapng", 1514, 10.0, "debug")


@pytest.mark.parametrize(("value", "port"), [("0", 0), ("off", 0), ("yes", 1514), ("5140", 5140)])
def test_the_port_of_the_log(value: str, port: int) -> None:
    assert PortUrl.parse(f"usbip://pi/1-1?syslog={value}").syslog == port


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("http://pi/1-1", "does not begin with usbip://"),
        ("usbip:pi/1-1", "names no server"),
        ("usbip:///1-1", "names no server"),
        ("usbip://me@pi/1-1", "user"),
        ("usbip://pi:99999/1-1", "99999 is not a TCP port"),
        ("usbip://pi:x/1-1", "not an address"),
        ("usbip://[::1/1-1", "not a URL"),
        ("usbip://pi/1-1/2", "is not a device"),
        ("usbip://pi/" + "1" * 32, "is not a device"),
        ("usbip://pi/1 1", "is not a device"),
        ("usbip://pi/303a:xyz", "VID:PID in hexadecimal"),
        ("usbip://pi/1-1#x", "#x"),
        ("usbip://pi/1-1?speed=9600", "unknown parameter 'speed'"),
        ("usbip://pi/1-1?pcap", "pcap=VALUE"),
        ("usbip://pi/1-1?pcap=", "pcap is empty"),
        ("usbip://pi/1-1?serial=", "serial is empty"),
        ("usbip://pi/1-1?interface=x", "interface=x"),
        ("usbip://pi/1-1?interface=256", "interface=256"),
        ("usbip://pi/0403:6001?instance=-1", "instance=-1"),
        ("usbip://pi/1-1?instance=1", "leave instance= out"),
        ("usbip://pi/1-1?syslog=maybe", "syslog=maybe"),
        ("usbip://pi/1-1?syslog=70000", "syslog=70000"),
        ("usbip://pi/1-1?reconnect=soon", "reconnect=soon"),
        ("usbip://pi/1-1?reconnect=nan", "reconnect=nan"),
        ("usbip://pi/1-1?reconnect=-1", "reconnect=-1"),
        ("usbip://pi/1-1?logging=loud", "logging=loud"),
        ("usbip://pi/1-1?serial=a&serial=b", "serial twice"),
    ],
)
def test_each_wrong_part_is_named(text: str, output: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        PortUrl.parse(text)
    assert output in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        url = PortUrl.parse("usbip://" + text)
    except LocalProtocolError:
        return
    assert url.server.host


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("usbip://pi/1-1?via=tls", ServerAddress("pi", 3241, scheme="tls")),
        ("usbip://[::1]:1/1-1?via=tls", ServerAddress("::1", 1, scheme="tls")),
        ("usbip://pi/1-1?via=ssh", ServerAddress("pi", scheme="ssh")),
        (
            "usbip://me%40x@pi:3241/1-1?via=ssh&ssh_port=2222",
            ServerAddress("pi", 3241, scheme="ssh", user="me@x", ssh_port=2222),
        ),
    ],
)
def test_servers_by_tls_and_ssh(text: str, server: ServerAddress) -> None:
    """The port is the USB/IP server's, as in every such URL."""
    assert PortUrl.parse(text).server == server
    where, given = url_of(server)
    assert PortUrl.parse(f"usbip://{where}/1-1?{'&'.join(given)}").server == server


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("usbip://pi/1-1?via=http", "neither tls nor ssh"),
        ("usbip://me@pi/1-1?via=tls", "user"),
        ("usbip://pi/1-1?ssh_port=22", "via=ssh only"),
        ("usbip://pi/1-1?via=ssh&ssh_port=99999", "not a number"),
        ("usbip://-oProxyCommand%3Dx/1-1?via=ssh", "is not an address"),
        ("usbip://me:secret@pi/1-1?via=ssh", "is not an address"),
    ],
)
def test_ways_that_are_none(text: str, output: str) -> None:
    with pytest.raises(LocalProtocolError, match=output):
        PortUrl.parse(text)
