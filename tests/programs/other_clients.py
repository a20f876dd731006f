"""Programs that use other people's USB/IP clients."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from usbip_capture.demo.device import BULK_IN, BULK_OUT

#: With PyPI's pyusb-usbip-backend: writes to a loopback, and prints the product and what it has read.
PYUSB = f"""
import sys, usb.core, usb.util, usbip_backend
backend = usbip_backend.get_backend("127.0.0.1", int(sys.argv[1]), timeout=10.0)
device = usb.core.find(backend=backend, idVendor=0x1209, idProduct=1)
device.set_configuration()
assert device.write({BULK_OUT}, b"once around", 10000) == 11
print(usb.util.get_string(device, 2), bytes(device.read({BULK_IN}, 64, 10000)).decode())
"""


def run_program(module: str, program: str, port: int, folder: Path) -> str:
    """What `program` prints, which uses `module`."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"PyPI's {module} is not installed")
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py", str(port)], cwd=folder, env=dict(os.environ), capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
