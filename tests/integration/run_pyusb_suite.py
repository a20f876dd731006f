"""Runs PyUSB's own tests, from an unpacked source distribution, with our backend as its only one.

python run_pyusb_suite.py FOLDER/tests PORT [CAPTURE]
"""

from __future__ import annotations

import glob
import importlib
import os
import sys
import unittest

import usb.backend.libusb0
import usb.backend.libusb1
import usb.backend.openusb

from usbip_capture import get_backend


def main() -> int:
    folder, port, *pcap = sys.argv[1:]
    backend = get_backend("127.0.0.1", int(port), pcap=pcap[0] if pcap else None)
    usb.backend.libusb1.get_backend = lambda find_library=None: backend
    usb.backend.libusb0.get_backend = usb.backend.openusb.get_backend = lambda find_library=None: None
    if not hasattr(unittest.TestCase, "assertEquals"):  # gone in Python 3.12, used by the suite
        unittest.TestCase.assertEquals = unittest.TestCase.assertEqual
        unittest.TestCase.assertNotEquals = unittest.TestCase.assertNotEqual
    os.chdir(folder)
    sys.path.insert(0, folder)
    suite = unittest.TestSuite()
    for name in sorted(glob.glob("test_*.py")):
        suite.addTest(importlib.import_module(name.removesuffix(".py")).get_suite())
    result = unittest.TextTestRunner().run(suite)
    backend.close()
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
