"""What Wireshark asks: sentences that its parser takes, defaults that agree, nothing imported without need."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from usbip_capture.extcap import queries
from usbip_capture.extcap.grammar import sentence
from usbip_capture.options.table import OPTIONS

ROOT = Path(__file__).parents[3]
QUERIES = {
    "interfaces": ["--extcap-interfaces", "--extcap-version=4.0"],
    "interfaces of a newer version": ["--extcap-interfaces", "--extcap-version", "9.9", "--extcap-something-new"],
    "dlts": ["--extcap-dlts", "--extcap-interface", "usbip-remote"],
    "config": ["--extcap-config", "--extcap-interface", "usbip-remote"],
    "reload": ["--extcap-config", "--extcap-interface", "usbip-remote", "--extcap-reload-option", "device"],
    "filter": ["--extcap-capture-filter", "bulk and class == hid", "--extcap-interface", "usbip-remote"],
    "cleanup": ["--extcap-cleanup-postkill"],
}
#: Each is searched for, opened and run at every start of Wireshark, once for each interface: as few as can be.
EACH = {"usbip_capture"} | {
    f"usbip_capture.{name}"
    for name in (
        "extcap",
        "extcap.main",
        "extcap.queries",
        "extcap.grammar",
        "options",
        "options.option",
        "options.table",
    )
}
SERVERS = {
    f"usbip_capture.{name}"
    for name in ("servers", "servers.known", "servers.configuration", "net", "net.address", "system", "system.folders")
}
LOADED = {
    "interfaces": EACH
    | SERVERS
    | {f"usbip_capture.{name}" for name in ("servers.refresher", "live", "live.registry", "extcap.controls")},
    "dlts": EACH,
    "config": EACH | SERVERS | {f"usbip_capture.{name}" for name in ("extcap.dialog", "extcap.preferences")},
}
# extcap_parser.c: a keyword, then groups; a value ends at a brace before a brace, a blank or the end.
LINE = re.compile(r"^(extcap|interface|dlt|arg|value|control) (\{[a-z]+=[^{}\r\n]*\})+$")
TYPES = {"integer", "unsigned", "long", "double", "string", "password", "boolean", "boolflag", "selector", "radio",
         "multicheck", "fileselect"}  # fmt: skip


def answer(name: str) -> list[str]:
    found = queries.answer(QUERIES[name])
    assert found is not None
    text, error = found
    assert error == ""
    return text.splitlines()


def fields(line: str) -> dict[str, str]:
    return dict(re.findall(r"\{([a-z]+)=([^{}]*)\}", line))


@pytest.mark.parametrize("name", QUERIES)
def test_every_line_is_a_sentence(name: str) -> None:
    for line in answer(name):
        assert LINE.match(line), line


def test_interfaces() -> None:
    lines = answer("interfaces")
    assert "interface {value=usbip-remote}{display=USB/IP remote}{control=3}" in lines
    assert answer("interfaces of a newer version") == lines


def test_dlts() -> None:
    assert [fields(line)["number"] for line in answer("dlts")] == ["220"]


def test_config_has_every_option_once_with_its_default() -> None:
    args = [fields(line) for line in answer("config") if line.startswith("arg ")]
    assert [a["call"] for a in args] == [option.flag for option in OPTIONS]
    values = [fields(line) for line in answer("config") if line.startswith("value ")]
    for arg, option in zip(args, OPTIONS, strict=True):
        assert arg["type"] in TYPES
        # The call becomes a preference name; Wireshark aborts on any other character.
        assert re.fullmatch(r"[a-z0-9_.]+", arg["call"].replace("-", ""))
        assert not ("required" in arg and "default" in arg), "Wireshark 4.0 asks for such an option for ever"
        shown = arg.get("default")
        if option.choices:
            shown = next(v["value"] for v in values if v["arg"] == arg["number"] and v.get("default") == "true")
        assert option.parse(shown or "") == option.default
        if "validation" in arg and arg.get("placeholder"):
            assert re.compile(arg["validation"])


@pytest.mark.parametrize("name", ["dlts", "config"])
def test_unknown_interfaces_get_a_sentence(name: str) -> None:
    found = queries.answer([QUERIES[name][0], "--extcap-interface", "eth0"])
    assert found is not None
    assert found[0] == ""
    assert "usbip-remote" in found[1]


@pytest.mark.parametrize(("text", "words"), [("bulk", ""), (" ", ""), ("bulk and", "at 9"), ("bulk = 1", "==")])
def test_capture_filters_are_checked(text: str, words: str) -> None:
    found = queries.answer(["--extcap-capture-filter", text, "--extcap-interface", "usbip-remote"])
    assert found is not None
    assert len(found[0].splitlines()) == bool(words)
    assert words in found[0]


def test_braces_and_line_breaks_never_get_into_a_sentence() -> None:
    assert sentence("value", display="a{b}\r\nc") == "value {display=a(b)  c}"


@pytest.mark.parametrize("name", [name for name in QUERIES if name != "reload"])
def test_queries_import_next_to_nothing(name: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from usbip_capture.extcap.main import main\n"
        f"code = main({QUERIES[name]!r})\n"
        "sys.stderr.write(' '.join(sys.modules)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import os, sys; sys.stderr.write(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    more = set(done.stderr.split()) - set(bare.stderr.split())
    assert {name for name in more if not name.startswith("usbip_capture")} == {"__future__"}
    if name in LOADED:
        assert {name for name in more if name.startswith("usbip_capture")} == LOADED[name]
