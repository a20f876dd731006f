"""Programs that use other people's USB/IP clients."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: With PyPI's pyusb-usbip-backend: writes to a loopback's bulk pair, and prints the product and what it has read.
PYUSB = """
import sys, usb.core, usb.util, usbip_backend
backend = usbip_backend.get_backend("127.0.0.1", int(sys.argv[1]), timeout=10.0)
device = usb.core.find(backend=backend, idVendor=0x1209, idProduct=1)
device.set_configuration()
bulk_out, bulk_in = int(sys.argv[2]), int(sys.argv[3])
assert device.write(bulk_out, b"once around", 10000) == 11
print(usb.util.get_string(device, 2), bytes(device.read(bulk_in, 64, 10000)).decode())
"""


def run_program(module: str, program: str, folder: Path, *arguments: int) -> str:
    """What `program` prints, which uses `module`; its first argument is the server's port."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"PyPI's {module} is not installed")
    (folder / "program.py").write_text(program)
    command = [sys.executable, "program.py", *map(str, arguments)]
    environment = dict(os.environ)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
