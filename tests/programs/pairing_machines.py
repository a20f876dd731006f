"""In a network of its own: a closed server at one address, and a client at another one, which is paired meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress

from tests.fakes.local_bus import FakeBus
from usbip_capture import LocalServer, serve
from usbip_capture.devices.devlist import list_devices
from usbip_capture.errors import UsbipError
from usbip_capture.tls.client import connect_tls
from usbip_capture.tls.known_servers import KnownServer, remember
from usbip_capture.tls.pairing_client import pair_with

SERVER, CLIENT, PORT, TIMEOUT = "192.0.2.1", "192.0.2.2", 3241, 20.0


def make_network() -> None:
    """Connections to the server come from the client's address."""
    for line in (
        "link set lo up",
        f"addr add {SERVER}/32 dev lo",
        f"addr add {CLIENT}/32 dev lo",
        f"route replace local {SERVER} dev lo src {CLIENT} table local",
    ):
        subprocess.run(["ip", *line.split()], check=True)


def seen() -> list[str]:
    with suppress(OSError, UsbipError):
        return sorted(info.busid for info in list_devices(connect_tls(SERVER, PORT, TIMEOUT), TIMEOUT))
    return []


def run(server: LocalServer) -> dict[str, list[str]]:
    assert server.tls is not None
    remember(SERVER, PORT, KnownServer(server.tls.fingerprint))
    found = {"before": seen()}
    pair_with(SERVER, PORT, server.tls.pairing.offer()[0], "ann", TIMEOUT)
    server.access.set("closed", ["deny any 1-2"])
    found["paired"] = seen()
    server.access.set("closed", ["allow paired:ann 1-2"])
    found["limited"] = seen()
    server.tls.pairing.remove("ann")
    found["removed"] = seen()
    return found


def main() -> None:
    make_network()
    bus = FakeBus()
    bus.plug("1-1")
    bus.plug("1-2")
    with serve(["all"], rules=[], listen="127.0.0.1:0", tls=f"{SERVER}:{PORT}", announce=False, bus=bus) as server:
        sys.stdout.write(json.dumps(run(server)))


if __name__ == "__main__":
    main()
