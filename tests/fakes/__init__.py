"""Peers and devices whose every answer a test decides."""
