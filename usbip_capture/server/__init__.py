"""A USB/IP server: lends Devices to clients, one client each, as Linux's usbipd does."""

from usbip_capture.server.exporter import Server

__all__ = ["Server"]
