"""Collects the log of a device, or of many, by syslog: for a program, and into the capture of its USB traffic."""

from usbip_capture.collector.receiver import SyslogReceiver

__all__ = ["SyslogReceiver"]
