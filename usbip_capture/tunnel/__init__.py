"""Servers behind TLS or ssh, for clients that know neither: each of their connections becomes one to the server."""
