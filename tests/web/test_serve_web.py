"""`usbip-capture serve --web` as a person runs it, and what is loaded without it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.fakes.local_bus import FakeBus
from tests.programs.serve_command import Serving
from usbip_capture import serve
from usbip_capture.errors import CannotListen, LocalProtocolError, UsbipError
from usbip_capture.servers.server_table import parse_server_table
from usbip_capture.serving import fronts


def test_the_link_is_printed_once_and_leads_in(tmp_path: Path) -> None:
    first = Serving(tmp_path, "--all", "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0", "--no-live")
    try:
        link = first.wait_for(r"sign in to it with this link, which is shown only once: (\S+)")[1]
        assert link.startswith(first.wait_for(r"the dashboard is at (\S+)")[1])
        assert httpx.get(link, timeout=60).status_code == 303
        assert first.end(signal.SIGTERM) == 0
        assert "Traceback" not in first.said
    finally:
        first.close()
    (tmp_path / "machine").unlink()  # a machine is made by each
    again = Serving(tmp_path, "--all", "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0", "--no-live")
    try:
        again.wait_for(r"the dashboard is at (\S+)")
        again.wait_for("serving at")
        assert again.end() == 0
        assert "token" not in again.said
    finally:
        again.close()


def test_nothing_of_it_is_loaded_unless_it_is_asked_for() -> None:
    code = (
        "import sys, usbip_capture, usbip_capture.serving.local_server, usbip_capture.cli.serve\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('starlette', 'uvicorn', 'wsproto', 'h11')\n"
        "       or name.startswith('usbip_capture.web')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_a_port_that_is_taken_ends_the_start_with_a_sentence() -> None:
    bus = FakeBus()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match="the dashboard"):
            serve(["all"], listen="127.0.0.1:0", web=f"127.0.0.1:{port}", bus=bus)
    with serve(["all"], listen="127.0.0.1:0", web=f"127.0.0.1:{port}", bus=bus) as server:
        assert server.dashboard is not None
        assert server.dashboard.urls == [f"http://127.0.0.1:{port}/"]
        assert server.dashboard.link  # the start that failed has not used it up


def test_a_package_that_is_not_installed_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> None:
        raise ModuleNotFoundError("No module named 'starlette'", name="starlette")

    monkeypatch.setattr(fronts, "import_module", import_module)
    with pytest.raises(UsbipError, match=r"pip install 'usbip-capture\[server\]'"):
        serve(["all"], listen="127.0.0.1:0", web="127.0.0.1:0", bus=FakeBus())


@pytest.mark.parametrize("web", ["", "127.0.0.1:x", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_a_sentence(web: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"web: .*is not an? (address|TCP port)"):
        serve(["all"], listen="127.0.0.1:0", web=web, bus=FakeBus())


def test_the_configuration_has_it_too() -> None:
    table = parse_server_table(b'[server]\nweb = "0.0.0.0"\nweb-tls = true\nweb-host = ["pi.lan"]\n', "config.toml")
    assert (table.web, table.web_tls, table.web_host) == (("0.0.0.0",), True, ("pi.lan",))
    for wrong in (b"web = true", b'web = [""]', b'web-host = ["a b"]', b'web-host = ["http://a"]', b'web-tls = "on"'):
        with pytest.raises(LocalProtocolError, match="line 2"):
            parse_server_table(b"[server]\n" + wrong, "config.toml")
