"""Devices of this machine by libusb: on Linux, macOS and Windows, without a kernel module."""
