"""A relay in a process of its own, which outlives the capture that has started it.

The child reports on its standard output that it listens, or one sentence why not; then it closes what it inherited.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading

from usbip_capture.errors import CannotListen, UsbipError
from usbip_capture.live import registry
from usbip_capture.live.registry import Entry
from usbip_capture.relay.ruling import relay_rules
from usbip_capture.relay.service import RelayService
from usbip_capture.servers.address import ServerAddress
from usbip_capture.system.latch import Latch
from usbip_capture.system.signals import ensure_noticed

log = logging.getLogger(__name__)

#: Seconds that the child has to listen.
_START_TIMEOUT = 15.0


def start(server: ServerAddress, address: str, port: int, allow: str) -> Entry:
    """Start a relay and wait until it listens. It ends when nobody is connected and nothing captured.

    Raises CannotListen with the sentence of the child, such as that the port is taken.
    """
    library = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    settings = json.dumps([*server.place, address, port, allow])
    # As the launcher does: where it was started with -I -S, our dependencies are not to be found by themselves.
    code = (
        f"import site; site.addsitedir({library!r}); import sys; sys.path.insert(0, {library!r}); "
        f"from usbip_capture.relay.background import main; main({settings!r})"
    )
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
    nothing, home = subprocess.DEVNULL, os.path.expanduser("~")
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", code], stdin=nothing, stdout=subprocess.PIPE, stderr=nothing,
        cwd=home if os.path.isdir(home) else os.sep, start_new_session=True, creationflags=flags,
    )  # fmt: skip
    assert process.stdout is not None
    late = threading.Timer(_START_TIMEOUT, process.kill)
    late.daemon = True
    late.start()
    with process.stdout as output:
        answer = output.readline().decode("utf-8", "replace").strip()
    late.cancel()
    kind, _, text = answer.partition(" ")
    if kind == "sentence":
        process.wait()
        raise CannotListen(text)
    entry = registry.find(text) if kind == "listed" else None
    if entry is None:
        raise CannotListen("the relay's process did not start: run usbip-capture relay to see why")
    process.returncode = 0  # it is on its own now, and no child that is forgotten
    return entry


def main(settings: str) -> None:
    """What the child runs."""
    host, port, address, listen_port, allow = json.loads(settings)
    try:
        service = RelayService(ServerAddress.at(host, port), address, listen_port, rules=relay_rules([allow]))
    except UsbipError as error:
        _report(f"sentence {error}")
        return
    stopping = Latch()
    ensure_noticed()
    for name in ("SIGTERM", "SIGINT"):
        signal.signal(getattr(signal, name), lambda *_: stopping.set())
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _report(f"listed {service.channel.name}")
    make_responsive()
    service.wait_unused(stopping)
    service.close()


def make_responsive() -> None:
    """The thread that forwards must not wait for the one that packs, which holds Python's lock for 5 ms otherwise."""
    sys.setswitchinterval(0.0002)


def _report(line: str) -> None:
    """Report it, and close the pipe: somebody waits for its end."""
    os.write(1, " ".join(line.split()).encode() + b"\n")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.close(nowhere)
