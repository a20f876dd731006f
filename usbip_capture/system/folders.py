"""Where this program keeps its own files. Imports nothing but `os`, for Wireshark's questions need it."""

from __future__ import annotations

import os
import sys

#: Of services of the system. Ref: systemd.exec(5), RuntimeDirectory=
_SYSTEM_RUNTIME = "/run/usbip-capture"


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


def runtime_folder() -> str:
    """Where a running program has its sockets. Ref: XDG Base Directory Specification 0.8"""
    given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if os.path.basename(given) == os.path.basename(_SYSTEM_RUNTIME):  # a service of ours, not one that we are part of
        return given
    return runtime_folders()[0]


def runtime_folders() -> list[str]:
    """Where programs of this user may have them, and services of the system; the usual place first."""
    if os.name == "nt" or sys.platform == "darwin":
        return [os.path.join(cache_folder(), "runtime")]
    of_login = f"/run/user/{os.geteuid()}"
    base = os.environ.get("XDG_RUNTIME_DIR") or (of_login if os.path.isdir(of_login) else "")
    own = [os.path.join(base, "usbip-capture")] if base else []
    rest = [_SYSTEM_RUNTIME, os.path.join(cache_folder(), "runtime")]
    return own + (rest if not os.geteuid() else rest[::-1])
