"""Which of a server's ports is announced."""

from __future__ import annotations

import pytest

from usbip_capture.serving.announced import Announced, announced

NEAR, FAR = [("127.0.0.1", 3240)], [("0.0.0.0", 3240), ("::", 3240), ("192.0.2.1", 3300)]
TLS_NEAR, TLS_FAR = [("::1", 3241)], [("192.0.2.1", 3241)]


@pytest.mark.parametrize(
    ("plain", "tls", "wanted", "found"),
    [
        ([], [], None, None),
        (NEAR, [], None, None),
        (NEAR, TLS_NEAR, None, None),
        (FAR, TLS_FAR, False, None),
        ([], [], True, None),
        (NEAR, [], True, Announced(3240, ["127.0.0.1"], 0)),
        (NEAR, TLS_NEAR, True, Announced(3240, ["127.0.0.1"], 3241)),
        (FAR, [], None, Announced(3240, ["0.0.0.0", "::"], 0)),
        (FAR, TLS_NEAR, None, Announced(3240, ["0.0.0.0", "::"], 0)),
        (FAR, TLS_FAR, None, Announced(3240, ["0.0.0.0", "::"], 3241)),
        (NEAR, TLS_FAR, None, Announced(3241, ["192.0.2.1"], 3241)),
        ([], TLS_FAR, None, Announced(3241, ["192.0.2.1"], 3241)),
        ([], TLS_NEAR, True, Announced(3241, ["::1"], 3241)),
    ],
)
def test_what_others_can_use(
    plain: list[tuple[str, int]], tls: list[tuple[str, int]], wanted: bool | None, found: Announced | None
) -> None:
    assert announced(plain, tls, wanted) == found
