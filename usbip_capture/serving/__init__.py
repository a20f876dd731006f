"""This machine's devices, lent to USB/IP clients: server, bus, rules, captures and configuration put together."""

from usbip_capture.serving.local_server import LocalServer, serve

__all__ = ["LocalServer", "serve"]
