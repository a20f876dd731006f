"""The page: complete in itself, nothing of a capture becomes markup, and what it plots is what was counted."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

from usbip_capture.records.pcapng import Section, pack_packet
from usbip_capture.records.upper_pdu import pack_head
from usbip_capture.records.usbmon import UsbmonPacker
from usbip_capture.report.html import html_page
from usbip_capture.report.measure import measure
from usbip_capture.usb.urb import Buffer, Completion, TransferType, Urb

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{page_js}}"
START_NS = 1_700_000_000 * 10**9
IN = Urb(TransferType.BULK, 0x81, 512)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Three URBs, one of them failed, and a log line; every text is hostile."""
    section = Section(application="t", hardware="", os="")
    blocks: list[Buffer] = [section.header(), section.interface(name="usbip0", description=EVIL, snaplen=0)[1]]
    blocks.append(section.interface(name=EVIL, description="", snaplen=0, link_type=252)[1])
    packer = UsbmonPacker(0, 65536, 1, 2)
    for n, completion in enumerate([Completion(0, 100, bytes(100)), Completion(-71), Completion(0, 50, bytes(50))]):
        stamp = START_NS + n * 10**9
        packer.submit(blocks, stamp, n, IN, b"", [EVIL])
        packer.complete(blocks, stamp + 2_000_000, n, IN, completion)
    blocks.append(pack_packet(1, START_NS + 5 * 10**8, pack_head("syslog") + f"<132>{EVIL}".encode()))
    path = tmp_path / "{{data}}<b>.pcapng"
    path.write_bytes(b"".join(blocks))
    return path


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


def test_the_page_needs_nothing_else(capture: Path) -> None:
    tags = Tags(html_page(measure(capture))).tags
    assert not [tag for tag, attributes in tags if {"src", "href"} & attributes.keys()]
    assert not [tag for tag, _ in tags if tag in ("link", "img", "iframe", "object", "base")]
    policy = next(a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_nothing_of_a_capture_becomes_markup(capture: Path) -> None:
    page = html_page(measure(capture))
    found = Tags(page)
    assert [tag for tag, _ in found.tags].count("script") == 3
    assert not [tag for tag, attributes in found.tags if tag in ("img", "b") or "onerror" in attributes]
    assert "<title>{{data}}&lt;b&gt;.pcapng</title>" in page


def test_what_is_plotted_is_what_was_counted(capture: Path) -> None:
    data = json.loads(re.findall(r'id="data">(.*?)</script>', html_page(measure(capture)), re.DOTALL)[0])
    (endpoint,) = data["endpoints"]
    cells = endpoint["cells"]
    assert [sum(cell[place] for cell in cells) for place in (1, 2, 3, 4, 5)] == [3, 150, 1, 3, 6_000_000]
    assert max(cell[6] for cell in cells) == 2_000_000
    assert all(0 <= cell[0] < data["slices"] for cell in cells)
    assert data["slices"] * data["width"] == pytest.approx(2, rel=0.01)
    assert [(round(at, 3), severity, text) for at, _, severity, text in data["lines"]] == [
        (0.0, "notice", EVIL),
        (0.5, "warning", EVIL),
        (1.0, "notice", EVIL),
        (1.002, "error", "0x81 bulk IN: EPROTO (protocol error, no answer or bad CRC)"),
        (2.0, "notice", EVIL),
    ]


def test_what_others_have_made_is_named() -> None:
    notice = (Path(__file__).parents[3] / "NOTICE").read_text()
    assets = {entry.name for entry in (resources.files("usbip_capture.report") / "assets").iterdir()}
    others = {name for name in assets if name.startswith("uPlot")}
    assert others == {"uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE"}
    assert all(name in notice for name in others)
