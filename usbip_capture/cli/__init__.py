"""`usbip-capture`: the library's work for people and scripts."""
