"""Serial adapters, pure: line settings become control requests, packets become bytes and modem lines."""
