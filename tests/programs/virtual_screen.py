"""A screen that nobody sees, for programs with windows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def virtual_screen(size: str = "1280x900") -> Iterator[str]:
    """Run Xvfb on a display of its own; the value for DISPLAY."""
    ours, theirs = os.pipe()
    command = ["Xvfb", "-displayfd", str(theirs), "-screen", "0", f"{size}x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[theirs], stderr=subprocess.DEVNULL)
    os.close(theirs)
    try:
        with open(ours) as number:
            name = f":{number.readline().strip()}"
        yield name
    finally:
        server.terminate()
        server.wait(10)
