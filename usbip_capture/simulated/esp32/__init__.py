"""A simulated ESP32 at the far end of a serial line: reset circuit, ROM loader, flash, and a flasher stub."""
