"""A transparent relay between USB/IP clients and a server: bytes are forwarded unchanged, a copy is observed."""
