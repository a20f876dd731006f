"""The USB/IP protocol, pure: bytes in, events out. No socket, thread or clock."""
