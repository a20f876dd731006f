"""Connections: addresses, connecting, listening, and the transports that carry bytes."""
