"""The built-in simulated server, its log, and devices out of lsusb's text."""
