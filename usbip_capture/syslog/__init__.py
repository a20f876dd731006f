"""Syslog, bytes in and messages out: framing of streams, RFC 5424, RFC 3164, and lines as ESP-IDF prints them."""
