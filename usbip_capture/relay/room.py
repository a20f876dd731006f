"""Whether there is room for one more client of the relay, and who has to go for it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection

from usbip_capture.access.limits import TOO_MANY_OF_ADDRESS, Limits, Room, Waiting, room_when_full
from usbip_capture.relay.forwarding import Connection
from usbip_capture.system.descriptors import most_descriptors

#: Descriptors of this process that are for something else; and those of a client.
_OTHER_DESCRIPTORS, _EACH = 64, 2
#: So many of one address may be on their way to the server in any case.
_FEW = 8


def room_for(
    address: str,
    connections: Collection[Connection],
    connecting: Counter[str],
    limits: Limits,
    most: int,
    patience: float,
) -> Room[Connection]:
    """For one more of this address. connecting: those that are not connected to the server yet, by address.

    most: how many there can be, fewer where this process may have few descriptors. patience: seconds without a byte
    after which who has imported nothing may have to go.
    """
    most = max(min(most, (most_descriptors() - _OTHER_DESCRIPTORS) // _EACH), 2)
    most = min(limits.max_clients or most, most)
    waiting = [
        Waiting(connection, connection.address, connection.active_ns / 1e9)
        for connection in connections
        if not connection.observation.imported
    ]
    of_address = sum(connection.address == address for connection in connections) + connecting[address]
    if 0 < limits.max_clients_per_address <= of_address:
        own = [one for one in waiting if one.address == address]
        room = room_when_full(own, address, time.time(), patience)
        return room._replace(refusal=TOO_MANY_OF_ADDRESS) if room.refusal else room
    if connecting[address] >= max(most // 2, _FEW):  # while the server takes its time, none of these can be given up
        return Room(TOO_MANY_OF_ADDRESS)
    if len(connections) + connecting.total() < most:
        return Room()
    return room_when_full(waiting, address, time.time(), patience)
