"""This machine's kernel as the client: devices of servers attached by Linux's vhci-hcd, as `usbip attach` does."""
