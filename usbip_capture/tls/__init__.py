"""USB/IP within TLS: its transport, this machine's key and certificate, and whom it trusts."""
