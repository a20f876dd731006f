"""Severities and facilities by number and name.

Ref: RFC 5424, 6.2.1
"""

from __future__ import annotations

SEVERITIES = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
EMERGENCY, ALERT, CRITICAL, ERROR, WARNING, NOTICE, INFO, DEBUG = range(8)

USER = 1  # the facility of messages that name none
