"""`serve` as a service of systemd: of the system, or of the user who is logged in.

The unit has what such a server needs and nothing else: USB devices, sockets, and its own folders.

Ref: systemd.service(5), systemd.exec(5), systemd.resource-control(5)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from usbip_capture.errors import LocalProtocolError, UsbipError
from usbip_capture.servers.configuration import CONFIGURATION_FILE, configuration_path
from usbip_capture.system.folders import configuration_folder

SYSTEM, USER = "system", "user"
UNIT = "usbip-capture.service"
_SYSTEM_UNITS = "/etc/systemd/system"
#: Ref: systemd sd_booted(3)
_BOOTED = "/run/systemd/system"
_TIMEOUT = 60.0
#: What any argument may be without quotes.
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@+=:,./-")

_UNIT = """\
# Written by `usbip-capture serve --service install`; `--service remove` removes it.
[Unit]
Description=USB/IP server of this machine's USB devices
Documentation=man:usbip(8)
{after}

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
# Fed while libusb handles events. A device that is stuck costs its own client only.
WatchdogSec=10
Restart=on-failure
RestartSec=2
# Wrong arguments stay wrong.
RestartPreventExitStatus=2
# Each device is its kernel driver's again within that time.
TimeoutStopSec=15
{scope}
# No MemoryDenyWriteExecute: the callbacks of libusb are code that ctypes writes.
NoNewPrivileges=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0077

[Install]
WantedBy={target}
"""
_OF_SYSTEM = """\
# /etc/usbip-capture/config.toml, /var/lib/usbip-capture, /run/usbip-capture (for `clients`, `kick`, `bind`, ...)
Environment=XDG_CONFIG_HOME=/etc XDG_STATE_HOME=/var/lib XDG_CACHE_HOME=/var/cache
ConfigurationDirectory=usbip-capture
# Leases are kept there.
ReadWritePaths=/etc/usbip-capture
StateDirectory=usbip-capture
StateDirectoryMode=0700
CacheDirectory=usbip-capture
CacheDirectoryMode=0700
RuntimeDirectory=usbip-capture
RuntimeDirectoryPreserve=yes
DevicePolicy=closed
DeviceAllow=char-usb_device rw
CapabilityBoundingSet={capabilities}
PrivateTmp={private_tmp}
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=read-only
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=strict
"""


def unit_text(scope: str, arguments: Sequence[str], writable: Sequence[str] = ()) -> str:
    """The unit. arguments: of `serve`. writable: folders that it writes to besides its own."""
    command = [sys.executable, "-m", "usbip_capture", "serve", *arguments]
    of_scope = ""
    if scope == SYSTEM:
        capabilities = "CAP_DAC_READ_SEARCH" if _is_private(sys.executable) else ""
        shared = any(Path(path).is_relative_to(tmp) for path in writable for tmp in ("/tmp", "/var/tmp"))  # noqa: S108
        private_tmp = "no" if shared else "yes"
        of_scope = _OF_SYSTEM.format(capabilities=capabilities, private_tmp=private_tmp) + "".join(
            f"ReadWritePaths={_quoted(path)}\n" for path in dict.fromkeys(writable)
        )
    return _UNIT.format(
        command=" ".join(map(_quoted, command)),
        scope=of_scope.rstrip("\n"),
        after="After=network-online.target\nWants=network-online.target" if scope == SYSTEM else "",
        target="multi-user.target" if scope == SYSTEM else "default.target",
    ).replace("\n\n\n", "\n\n")


def unit_path(scope: str) -> Path:
    """Where the unit lies."""
    if scope == SYSTEM:
        return Path(_SYSTEM_UNITS, UNIT)
    return Path(os.path.dirname(configuration_folder()), "systemd", "user", UNIT)


def configuration_of(scope: str) -> str:
    """The configuration that the service reads."""
    return f"/etc/usbip-capture/{CONFIGURATION_FILE}" if scope == SYSTEM else configuration_path()


def install(scope: str, text: str, run: Callable[..., str] | None = None) -> str:
    """Write the unit and start it, now and with each start of the system or login; a sentence. Raises UsbipError."""
    control = run or _systemctl
    path = unit_path(scope)
    _check(scope)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise UsbipError(f"{path} cannot be written: {error.strerror or error}{_rights(scope)}") from error
    control(scope, "daemon-reload")
    control(scope, "enable", UNIT)
    try:
        control(scope, "restart", UNIT)
    except UsbipError as error:
        log = f"journalctl{_flag(scope)} -u {UNIT} -n 20"
        raise UsbipError(f"{path} is installed but does not start: {error}; see `{log}`") from error
    return f"{path} is installed and runs; see `systemctl{_flag(scope)} status {UNIT}`"


def remove(scope: str, run: Callable[..., str] | None = None) -> str:
    """Stop it and remove its unit; a sentence. The configuration stays. Raises UsbipError."""
    control = run or _systemctl
    path = unit_path(scope)
    _check(scope)
    if not path.exists():
        raise UsbipError(f"{path} is not there: no such service is installed")
    control(scope, "disable", "--now", UNIT)
    try:
        path.unlink()
    except OSError as error:
        raise UsbipError(f"{path} cannot be removed: {error.strerror or error}{_rights(scope)}") from error
    control(scope, "daemon-reload")
    return f"{path} is removed; its configuration stays in {configuration_of(scope)}"


def _is_private(path: str) -> bool:
    """Whether root needs a privilege to read what lies there: below the home of somebody, as a rule."""
    folders = Path(path).parents
    return any(status.st_uid and not status.st_mode & 0o001 for status in map(os.stat, folders))


def _check(scope: str) -> None:
    if not os.path.isdir(_BOOTED) or shutil.which("systemctl") is None:
        raise UsbipError("--service needs systemd, which does not run here: docs/server.md has what to do instead")
    if scope == SYSTEM and os.geteuid():
        raise UsbipError(f"a service of the system is for root to install{_rights(scope)}")


def _systemctl(scope: str, *arguments: str) -> str:
    """Raises UsbipError, with its message."""
    command = ["systemctl", *(["--user"] if scope == USER else []), *arguments]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsbipError(f"`{' '.join(command)}` does not work: {error}") from error
    if done.returncode:
        output = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise UsbipError(f"`{' '.join(command)}` failed: {output}")
    return done.stdout


def _flag(scope: str) -> str:
    return " --user" if scope == USER else ""


def _rights(scope: str) -> str:
    return ": use sudo, or --service install user" if scope == SYSTEM else ""


def _quoted(argument: str) -> str:
    """An argument as one word of ExecStart. Ref: systemd.syntax(7); systemd.service(5), Command lines"""
    if "\n" in argument or "\0" in argument:
        raise LocalProtocolError(f"{argument!r} cannot be an argument of a service: it has a line break")
    text = argument.replace("%", "%%").replace("$", "$$")
    if argument and _PLAIN.issuperset(argument):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
