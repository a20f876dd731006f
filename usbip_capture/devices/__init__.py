"""Devices: where a `Transfer` finds its USB device. Remote over USB/IP, or simulated."""
