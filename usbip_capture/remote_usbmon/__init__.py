"""usbmon of another Linux machine, read by ssh: what its kernel and its devices exchange, whoever uses them."""
