"""A viewer of a server whose network is cut for a while: its system hears neither an end nor a reset of the connection.

Run in a network namespace of its own (`unshare -rn`), where it makes another one for the viewer. Arguments: a folder,
and for how many seconds the network is cut at least: until the viewer has noticed, in any case.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.programs.other_machine import SERVER, ip, other_machine
from tests.waiting import wait_until
from tests.web.dashboards import dashboard
from tests.web.test_captures import client_of, echo
from usbip_capture.server_stream.requests import SILENCE
from usbip_capture.web.roles import LOOK

LIMIT = 120.0
#: The first argument: seconds after which it is noticed that nothing comes.
CODE = """\
import sys
from usbip_capture.cli.main import main
from usbip_capture.server_stream import requests
requests.SILENCE = float(sys.argv.pop(1))
sys.exit(main())
"""


def watched(folder: Path, seconds: float, inside: int) -> None:
    """What happens while it is."""
    path = folder / "out.pcapng"
    with dashboard(web=f"{SERVER}:0", listen="127.0.0.1:0") as (server, made), client_of(server) as device:
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(0.02):
                echo(device)

        thread = threading.Thread(target=work)
        thread.start()
        environment = {**os.environ, "USBIP_CAPTURE_TOKEN": made.side.tokens.add("test", LOOK)}
        command = ["capture", "--mode", "server", f"{SERVER}:{made.addresses[0][1]}", "-o", str(path)]
        silence = SILENCE if seconds else SILENCE / 2
        enter = ["nsenter", "-t", str(inside), "-n", sys.executable, "-c", CODE, str(silence)]
        with subprocess.Popen([*enter, *command], env=environment) as viewer:
            try:
                wait_until("it is captured", lambda: path.exists() and path.stat().st_size > 20_000, LIMIT)
                ip("link", "set", "client", "down", inside=inside)
                cut = time.monotonic()
                wait_until("it is noticed", lambda: b"nothing has come from" in path.read_bytes(), LIMIT)
                wait_until("it was long", lambda: time.monotonic() - cut >= seconds, LIMIT)
                ip("link", "set", "client", "up", inside=inside)
                wait_until("it is joined again", lambda: b"is joined again after" in path.read_bytes(), LIMIT)
                size = path.stat().st_size
                wait_until("it goes on", lambda: path.stat().st_size > size + 20_000, LIMIT)
            finally:
                viewer.terminate()
                ended.set()
                thread.join()
        assert viewer.returncode == 0
        # The server has noticed, too: of the two only the new connection is left, and then none.
        wait_until("nothing is streamed any more", lambda: not made.side.streams.taken, LIMIT)


def main(folder: str, seconds: float) -> None:
    with other_machine() as inside:
        watched(Path(folder), seconds, inside)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
