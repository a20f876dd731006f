"""Against the pure build nothing is collected, unless USBIP_CAPTURE_TESTS_COMPILED says that it is the compiled one."""

from __future__ import annotations

import os

from usbip_capture.system.compiling import build

if build() != "compiled" and "USBIP_CAPTURE_TESTS_COMPILED" not in os.environ:
    collect_ignore_glob = ["test_*.py"]
