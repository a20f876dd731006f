"""Where this program keeps its own files. Imports nothing but `os`, for Wireshark's questions need it."""

from __future__ import annotations

import os
import sys


def configuration_folder() -> str:
    """Where the user's own settings lie."""
    if os.name == "nt":
        return os.path.join(os.environ.get("APPDATA") or os.path.expanduser("~"), "usbip-capture")
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Application Support/usbip-capture")
    return os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "usbip-capture")


def cache_folder() -> str:
    """Where what was seen is remembered."""
    if os.name == "nt":
        return os.path.join(os.environ.get("LOCALAPPDATA") or os.path.expanduser("~"), "usbip-capture", "cache")
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches/usbip-capture")
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "usbip-capture")


def state_folder() -> str:
    """What must outlive a crash lies there. Ref: XDG Base Directory Specification 0.8"""
    if os.name == "nt" or sys.platform == "darwin":
        return os.path.join(cache_folder(), "state")
    return os.path.join(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"), "usbip-capture")
