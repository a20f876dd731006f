"""Sockets: addresses and connecting."""
