"""For labgrid: USB/IP devices as resources of its places, drivers for them, and an exporter that lends them.

    imports:
    - usbip_capture.labgrid

in labgrid's environment makes `NetworkUsbipDevice`, `UsbipDevice`, `UsbipDriver` and `UsbipSerialDriver` known to it.
"""

try:
    import labgrid  # noqa: F401  the distribution, not this package
except ImportError as error:
    raise ImportError("resources and drivers for labgrid need labgrid: pip install 'usbip-capture[labgrid]'") from error

from usbip_capture.labgrid.console import UsbipSerialDriver
from usbip_capture.labgrid.resources import NetworkUsbipDevice, UsbipDevice
from usbip_capture.labgrid.usb_driver import UsbipDriver

__all__ = ["NetworkUsbipDevice", "UsbipDevice", "UsbipDriver", "UsbipSerialDriver"]
