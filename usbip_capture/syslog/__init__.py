"""Syslog, bytes in and messages out: framing of streams, RFC 5424, RFC 3164, and lines as ESP-IDF prints them."""

#: The port on which ESP32 bridges offer their log.
LOG_PORT = 1514
