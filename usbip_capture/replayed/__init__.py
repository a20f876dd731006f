"""Devices out of captures: they answer as the real ones did."""
