"""The rules of access with machines of other addresses, of IPv4 and of IPv6: the real command, in two networks."""

from __future__ import annotations

import json
from pathlib import Path

from tests.programs.own_network import in_own_network

PROGRAM = "tests.programs.access_across_networks"
A4, B4, A6, B6 = "10.213.0.2", "10.213.0.3", "fd00:213::2", "fd00:213::3"
#: What a client gets: both devices, one of them (4: there is no such device), or not even a connection.
BOTH, FIRST, SECOND, NOTHING = "sees 1-9.8,1-9.9; 0 0", "sees 1-9.9; 0 4", "sees 1-9.8; 4 0", "closed"


def test_who_may_have_what_is_decided_by_addresses_and_followed_at_once(tmp_path: Path) -> None:
    printed = in_own_network(PROGRAM, str(tmp_path), timeout=150)
    assert json.loads(printed) == {
        "start": {A4: BOTH, B4: NOTHING, A6: BOTH, B6: NOTHING},
        "own address": [BOTH, BOTH],
        "deny 10.213.0.2 1-9.9": {A4: SECOND, B4: NOTHING, A6: BOTH, B6: NOTHING},
        "deny fd00:213::/64 1209:0002": {A4: SECOND, B4: NOTHING, A6: FIRST, B6: NOTHING},
        "open": {A4: SECOND, B4: BOTH, A6: FIRST, B6: FIRST},
        "lost": [True],
        # 2: the device is in use.
        "reserved": {A4: "sees 1-9.8; 4 2", B4: "sees 1-9.8,1-9.9; 2 0", A6: FIRST, B6: "sees 1-9.9; 2 4"},
        "released": {A4: SECOND, B4: BOTH, A6: FIRST, B6: FIRST},
        "close": {A4: SECOND, B4: NOTHING, A6: FIRST, B6: NOTHING},
        "held": [True, True, True],
        "by hand": {A4: NOTHING, B4: NOTHING, A6: BOTH, B6: BOTH},
    }
