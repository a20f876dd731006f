"""A real Linux kernel as USB/IP server, client or gadget: Debian's, in QEMU, with devices that come and go."""

from __future__ import annotations

from tests.kernel.rig.fakedev import FakeDevice
from tests.kernel.rig.guest import Guest
from tests.kernel.rig.host import RigError, unsupported
from tests.kernel.rig.python_guest import Program, PythonGuest

__all__ = ["FakeDevice", "Guest", "Program", "PythonGuest", "RigError", "unsupported"]
