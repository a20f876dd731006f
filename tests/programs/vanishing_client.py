"""A client that vanishes: its network is taken away, so that its system sends neither an end nor a reset.

Run in a network namespace of its own (`unshare -rn`), where it makes another one for the client. Prints how many
seconds the server had the client for afterwards. Argument: how much it is sent then, in bytes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing

from tests.fakes.raw_client import RawClient
from tests.fakes.scripted_server import read_exactly
from tests.fakes.served import Served, submit
from tests.programs.other_machine import SERVER, ip, other_machine
from tests.waiting import wait_until

LIMIT = 120.0


def client(host: str, port: int) -> None:
    """In the client's namespace: has the device until its input ends."""
    with RawClient((host, int(port))) as found:
        assert not found.status
        found.control("0009010000000000")
        read_exactly(found.sock, 48)
        found.sock.sendall(submit(100, 4 << 20))
        sys.stdout.write("imported\n")
        sys.stdout.flush()
        sys.stdin.read()


def vanished(size: int, inside: int) -> float:
    """Seconds from then on until the device is free again."""
    served = Served()
    with closing(served.server):
        _, port = served.server.listen(SERVER, 0)
        command = [sys.executable, "-m", "tests.programs.vanishing_client", "client", SERVER, str(port)]
        enter = ["nsenter", "-t", str(inside), "-n"]
        with subprocess.Popen([*enter, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
            assert user.stdout is not None
            assert user.stdout.readline() == "imported\n"
            device = served.devices[0]
            device.wait_for(1)
            ip("link", "set", "client", "down", inside=inside)
            start = time.monotonic()
            if size:
                device.complete(0, bytes(size))
            wait_until("the client is noticed to be gone", lambda: not served.server.clients, LIMIT)
            took = time.monotonic() - start
            assert not device.alive
            assert served.server.disconnect("1-1") is False  # it is free
            user.kill()
    return took


def main(size: int) -> None:
    with other_machine() as inside:
        sys.stdout.write(f"{vanished(size, inside):.1f}\n")


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client(sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]))
