"""Captures of what is running: a program offers its sessions on a local channel, and others of the same user join."""
