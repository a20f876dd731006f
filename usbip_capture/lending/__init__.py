"""Lends this machine's devices: keeps a server in step with what is plugged in and what is to be exported."""
