"""The probe: imports devices, reads them as a host would, listens, releases them."""

from usbip_capture.probe.group import ProbeGroup
from usbip_capture.probe.session import ProbeSession
from usbip_capture.probe.settings import ProbeEvents, ProbeSettings

__all__ = ["ProbeEvents", "ProbeGroup", "ProbeSession", "ProbeSettings"]
