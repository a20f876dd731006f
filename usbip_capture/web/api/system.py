"""The system that the server runs on, and its restart."""

from __future__ import annotations

import os
import platform
import sys
import time

from starlette.background import BackgroundTask
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute

import usbip_capture
from usbip_capture.devices.libusb.binding import loaded_version
from usbip_capture.servers.configuration import configuration_path
from usbip_capture.servers.server_table import read_server_table
from usbip_capture.serving.restarting import Restart
from usbip_capture.system.memory import installed, resident
from usbip_capture.web.roles import ADMINISTER, LOOK
from usbip_capture.web.routing import Call, Conflict, NotHere, api

_RESTART = "/restart"


def shown(call: Call) -> object:
    """Versions, memory in bytes, times in seconds."""
    return {
        "name": call.side.server.name,
        "version": usbip_capture.__version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "libusb": loaded_version(),
        "platform": platform.platform(),
        "memory": {"rss": resident(), "total": installed()},
        "started": call.side.started,
        "uptime": time.time() - call.side.started,
        "pid": os.getpid(),
        "configuration": configuration_path(),
        "restart": call.side.restart is not None,
    }


def announced(call: Call) -> object:
    """What a restart does, and the token that confirms it."""
    _restart(call).check()
    pcap = read_server_table().pcap
    number = len([client for client in call.side.server.clients if client.busid])
    losing = f"{number} client{'s' if number > 1 else ''} will be disconnected" if number else "nobody has a device now"
    text = f"The server ends and starts again, as it is configured now: {losing}. The dashboard comes back by itself."
    text += f" The capture {pcap} begins anew." if pcap else ""
    return {"text": text, "confirm": call.side.confirmations.offer(_RESTART, call.user.name)}


def restart(call: Call) -> object:
    """As `announced` has it; once the answer is sent."""
    _restart(call)
    call.side.confirmations.check(_RESTART, call.user.name, call.text("confirm"))
    wanted = checked_restart(call)
    return JSONResponse({"ok": True, "outcome": "the server restarts"}, background=BackgroundTask(wanted.request))


def checked_restart(call: Call) -> Restart:
    """What a restart is requested of, if the server would start. Raises NotHere, Conflict, UsbipError."""
    wanted = _restart(call)
    wanted.check()
    if wanted.requested:
        raise Conflict("the server restarts already")
    return wanted


def _restart(call: Call) -> Restart:
    """Raises NotHere."""
    if call.side.restart is None:
        raise NotHere("this server is part of another program: restart that")
    return call.side.restart


ROUTES: list[BaseRoute] = [
    api("GET", "/system", shown, role=LOOK),
    api("GET", _RESTART, announced, role=ADMINISTER),
    api("POST", _RESTART, restart, role=ADMINISTER),
]
