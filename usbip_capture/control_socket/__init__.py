"""Commands for a running server: it listens on a local socket, programs of the same user ask."""
