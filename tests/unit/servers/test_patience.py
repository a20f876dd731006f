"""How long a server is waited for, where that is not given."""

from __future__ import annotations

import pytest

from usbip_capture.cli.main import main
from usbip_capture.errors import LocalProtocolError
from usbip_capture.pyusb_backend import get_backend
from usbip_capture.servers.patience import TIMEOUT_VARIABLE, connect_timeout


def test_the_environment_decides_if_it_says_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, " 7.5 ")
    assert connect_timeout(2.0) == 7.5
    monkeypatch.setenv(TIMEOUT_VARIABLE, "")
    assert connect_timeout(2.0) == 2.0
    monkeypatch.delenv(TIMEOUT_VARIABLE)
    assert connect_timeout(3.0) == 3.0


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_what_is_not_a_time_is_a_sentence(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, text)
    with pytest.raises(LocalProtocolError, match=TIMEOUT_VARIABLE):
        get_backend("192.0.2.1")
    assert main(["list", "192.0.2.1"]) == 2
    assert "--connect-timeout" in capsys.readouterr().err
