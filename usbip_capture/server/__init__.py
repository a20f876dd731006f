"""A USB/IP server: lends Devices to clients, one client each, as Linux's usbipd does."""

from usbip_capture.server.access import ALLOWED, Access, Decision
from usbip_capture.server.client import Client
from usbip_capture.server.exporter import Server

__all__ = ["ALLOWED", "Access", "Client", "Decision", "Server"]
