"""A client that vanished, with a real network that is taken away from it: its device is free again within 30 s."""

from __future__ import annotations

import pytest

from tests.programs.own_network import in_own_network

PROGRAM = "tests.programs.vanishing_client"


@pytest.mark.long
@pytest.mark.parametrize("size", [0, 1 << 16, 4 << 20], ids=["idle", "not acknowledged", "more than the system takes"])
def test_a_client_that_vanished_is_noticed_within_half_a_minute(size: int) -> None:
    """Counted are the kernel's own timers, which no load of this machine makes longer."""
    printed = in_own_network(PROGRAM, str(size), timeout=200)
    assert 10 < float(printed) < 30
