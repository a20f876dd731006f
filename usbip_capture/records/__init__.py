"""Records of a capture, pure: usbmon events of URBs, and the pcapng blocks around them."""
