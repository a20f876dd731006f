"""Several devices of one server, checked in the window's options, saved, and unchecked again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import wireshark_window as places
from tests.programs.wireshark_window import Window, wireshark
from tests.waiting import wait_until
from usbip_capture.servers import memory
from usbip_capture.servers.known import KnownDevice

pytestmark = pytest.mark.wireshark

#: Height of a text box of the dialog, and of what is between two.
_ROW = 31


@pytest.mark.parametrize("interface", ["usbip-remote", "usbip-pi"])
def test_check_boxes_are_saved(interface: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    boards = [KnownDevice(f"1-1.{n}", "303a:4004", "Bench board", serial=f"A00{n}") for n in (1, 2, 3, 4)]
    memory.remember_server("pi", 3240)
    memory.remember_devices("pi", 3240, boards)
    preferences = tmp_path / ".config/wireshark/preferences"
    preferences.parent.mkdir(parents=True)
    module = interface.replace("-", "_")
    preferences.write_text(f"extcap.usbip_remote.host: pi\nextcap.{module}.devices: 1-1.2,9-9\n")
    # A server's own interface has neither server nor port above.
    above = 0 if interface == "usbip-remote" else 2 * _ROW
    with wireshark(tmp_path, "-i", interface) as window:
        _check(window, preferences, f"extcap.{module}.devices: 1-1.2,1-1.3,9-9", above, 2)
        # Unchecked, it is as nobody had ever chosen any.
        _check(window, preferences, f"#extcap.{module}.devices: ", above, 1, 2, 4)


def _check(window: Window, preferences: Path, line: str, above: int, *rows: int) -> None:
    """Click at check boxes, save, and wait for what is stored."""
    x, y = window.open_dialog()
    first_x, first_y = places.FIRST_CHECK
    for row in rows:
        window.click((x + first_x, y + first_y - above + row * places.CHECK_HEIGHT))
    window.save_dialog((x, y))
    wait_until(f"{line!r} is stored", lambda: line in preferences.read_text().splitlines(), 20)
