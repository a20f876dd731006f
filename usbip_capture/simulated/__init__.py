"""Devices that are simulated."""
