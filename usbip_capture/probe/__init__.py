"""The probe: imports a device, reads it as a host would through PyUSB, listens, gives it back."""

from usbip_capture.probe.session import ProbeSession, ProbeSettings

__all__ = ["ProbeSession", "ProbeSettings"]
