"""`system.memory`: what the C library does with what is freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from usbip_capture.system.memory import keep_freed

PROGRAM = """
import os, resource
from usbip_capture.system.memory import keep_freed

keep_freed()
reading, writing = os.pipe()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    os.write(writing, bytes(32 << 10))
    os.read(reading, 256 << 10)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_it_can_be_called_anywhere() -> None:
    keep_freed()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_the_pages_of_what_is_read_are_made_once() -> None:
    command = [sys.executable, "-c", PROGRAM]
    faults = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert faults < 400  # of 1600, eight of 4 KiB for each
