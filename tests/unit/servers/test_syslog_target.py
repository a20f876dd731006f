"""Where messages of syslog are sent, as people write it."""

from __future__ import annotations

import pytest

from usbip_capture.errors import LocalProtocolError
from usbip_capture.servers.syslog_target import SyslogTarget


@pytest.mark.parametrize(
    ("text", "target", "shown"),
    [
        ("192.0.2.5", SyslogTarget("udp", "192.0.2.5", 514), "udp:192.0.2.5:514"),
        ("tcp:log.example:6000", SyslogTarget("tcp", "log.example", 6000), "tcp:log.example:6000"),
        ("UDP:[2001:db8::1]:515", SyslogTarget("udp", "2001:db8::1", 515), "udp:[2001:db8::1]:515"),
        ("2001:db8::1", SyslogTarget("udp", "2001:db8::1", 514), "udp:[2001:db8::1]:514"),
        ("log:515", SyslogTarget("udp", "log", 515), "udp:log:515"),
        ("/dev/log", SyslogTarget("local", "/dev/log"), "/dev/log"),
        ("unix:/run/log", SyslogTarget("unix", "/run/log"), "unix:/run/log"),
    ],
)
def test_targets(text: str, target: SyslogTarget, shown: str) -> None:
    assert SyslogTarget.parse(text) == target
    assert str(target) == shown
    assert SyslogTarget.parse(shown) == target


@pytest.mark.parametrize(
    "text", ["", "tcp:", ":514", "pi:0", "pi:70000", "tls:pi:6514", "a b", "a\x1b", "/a\0b", "unix:a"]
)
def test_what_is_not_one(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="is not where a syslog is"):
        SyslogTarget.parse(text)
