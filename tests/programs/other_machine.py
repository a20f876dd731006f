"""A machine beside this one, with a network to it: for programs in a network namespace of their own (`unshare -rn`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_until

#: Addresses of this one and of the other.
SERVER, CLIENT = "10.213.0.1", "10.213.0.2"


def ip(*arguments: str, inside: int | None = None) -> None:
    """The command of iproute2; inside: on the other machine."""
    enter = [] if inside is None else ["nsenter", "-t", str(inside), "-n"]
    subprocess.run([*enter, "ip", *arguments], check=True)


def namespace(process: int) -> str:
    return os.readlink(Path("/proc", str(process), "ns/net"))


@contextmanager
def other_machine(servers: Sequence[str] = (SERVER,), clients: Sequence[str] = (CLIENT,)) -> Iterator[int]:
    """A process there. The ends of the network are `server` here and `client` there, with these addresses."""
    with subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE) as other:
        wait_until("it is elsewhere", lambda: namespace(other.pid) != namespace(os.getpid()))
        ip("link", "set", "lo", "up")
        ip("link", "add", "server", "type", "veth", "peer", "name", "client", "netns", str(other.pid))
        for device, addresses, inside in (("server", servers, None), ("client", clients, other.pid)):
            for address in addresses:
                of_version_6 = ["nodad"] if ":" in address else []
                length = 64 if ":" in address else 24
                ip("address", "add", f"{address}/{length}", "dev", device, *of_version_6, inside=inside)
            ip("link", "set", device, "up", inside=inside)
        try:
            yield other.pid
        finally:
            other.kill()
