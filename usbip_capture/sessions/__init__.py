"""Sessions of devices, seen by whoever likes, from any moment on."""
