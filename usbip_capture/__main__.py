"""`python -m usbip_capture` is `usbip-capture`."""

import sys

from usbip_capture.cli import start

if __name__ == "__main__":
    sys.exit(start())
