"""`usbip-extcap --wireshark HOST [DEVICE]`: Wireshark, capturing from a device at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from usbip_capture.errors import CaptureError, LocalProtocolError
from usbip_capture.installation import launcher_check, placement, profile, wiresharks
from usbip_capture.installation.health import first_line
from usbip_capture.net.address import parse_place, usual_port
from usbip_capture.options.table import INTERFACE, OPTIONS

#: What ends within this many seconds did not start.
_PATIENCE = 1.5


def run(words: list[str]) -> int:
    """Start Wireshark for HOST[:PORT] and perhaps a device; it runs on without us. The exit code. Raises UsbipError."""
    options = preferences(words)
    process = start([*find(), "-k", "-i", INTERFACE, *options])
    print(f"Wireshark is starting, process {process}.")
    return 0


def preferences(words: list[str]) -> list[str]:
    """`-o NAME:VALUE` for the host, and for port and device where they are given. Raises LocalProtocolError.

    A device that is given is the only one: those that are stored as `devices` would win over it.
    """
    if not 1 <= len(words) <= 2:
        raise LocalProtocolError("give --wireshark a host, and perhaps a device: --wireshark pi 1-1.2")
    host, port = parse_place(words[0])
    values = {"host": host, "port": str(port) if port != usual_port(host) else "", "device": "".join(words[1:])}
    options = []
    for option in OPTIONS:
        text = values.get(option.name, "")
        if text or (option.name == "devices" and values["device"]):
            option.parse(text)
            options += ["-o", f"extcap.{INTERFACE.replace('-', '_')}.{option.name.replace('-', '')}:{text}"]
    return options


def find() -> list[str]:
    """The command of a Wireshark whose extcap folders hold our launcher, with our profile. Raises CaptureError."""
    if not wiresharks.has_display():
        raise CaptureError("there is no display to open a window on: capture with 'tshark -i usbip-remote' instead")
    problem = ""
    for each in wiresharks.installations():
        program = each.programs.get("wireshark")
        if program is None:
            continue
        launchers = [folder / placement.file_name() for folder in each.extcap_folders]
        path = next((path for path in launchers if os.path.lexists(path)), None)
        finding = launcher_check.file_problem(path) if path else None
        if path and finding is None:
            return [program, *profile.arguments(each.configuration)]
        reason = finding.text if finding else f"our launcher is not in {each.personal}"
        remedy = finding.remedy if finding else launcher_check.install_remedy()
        problem = problem or f"{each} does not know {INTERFACE}: {reason}; {remedy}"
    raise CaptureError(problem or "no program wireshark is in PATH or in the usual places: install Wireshark")


def start(command: list[str]) -> int:
    """Start a program that outlives us; its process id. Raises CaptureError if it ends at once with an error."""
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
    none = subprocess.DEVNULL
    # Not a pipe: with nobody at its other end, a warning of Wireshark's would end it later.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command, stdin=none, stdout=none, stderr=output, cwd=Path.home(), start_new_session=True,
                creationflags=flags,
            )  # fmt: skip
        except OSError as error:
            raise CaptureError(f"{command[0]} cannot be started: {error.strerror}; install Wireshark anew") from error
        try:
            code = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.returncode = 0  # it is on its own now, and no child that is forgotten
            return process.pid
        if code:
            output.seek(0)
            # Without what Wireshark's log puts before the text.
            reason = first_line(output.read(65536).decode("utf-8", "replace")).rpartition(" -- ")[2]
            reason = reason or f"exit code {code}"
            raise CaptureError(f"{command[0]} ended at once ({reason}): start it alone to see why")
    return process.pid
