"""PyUSB programs run unchanged on the devices of a server."""
