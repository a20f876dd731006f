"""Describes devices: their names, their descriptors as lsusb prints them, a tree of buses and ports."""
