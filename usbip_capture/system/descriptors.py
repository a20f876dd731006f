"""How many file descriptors, of sockets too, this process may have open at a time."""

from __future__ import annotations

import sys


def most_descriptors() -> int:
    """The limit now, such as of `ulimit -n`; where the system has none, a large number."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
