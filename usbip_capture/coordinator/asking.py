"""Asks a coordinator, by a process that is ended where it takes too long."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from usbip_capture.coordinator.answering import MISSING, UNREACHABLE
from usbip_capture.coordinator.places import Lab
from usbip_capture.errors import RemoteProtocolError, ServerUnreachable, UsbipError
from usbip_capture.system.shown import one_line

#: The sentence where it is not installed.
LABGRID_MISSING = (
    "this needs labgrid, which is not installed: pip install 'usbip-capture[labgrid]'; or, where pipx has installed "
    "this, pipx inject usbip-capture labgrid"
)
#: Seconds, beside the coordinator's, for the process to start and to import labgrid.
_STARTING = 20.0


class LabgridMissing(UsbipError):
    """labgrid is not installed for the Python that runs this."""


def asked(coordinator: str, timeout: float = 5.0) -> Lab:
    """What the coordinator at HOST[:PORT] has now, within `timeout` seconds.

    Raises LabgridMissing, ServerUnreachable, RemoteProtocolError.
    """
    try:
        done = subprocess.run(
            _command(coordinator, timeout), stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=timeout + _STARTING,
        )  # fmt: skip
        answer = json.loads(done.stdout)
        if "error" not in answer:
            return Lab.parse(answer)
    except subprocess.TimeoutExpired:
        answer = {"error": UNREACHABLE}
    except OSError as error:
        raise UsbipError(f"no process can be started to ask labgrid: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError):
        answer = {
            "error": "",
            "detail": one_line(done.stderr.decode(errors="replace").strip()) or "there was no answer",
        }
    where = f"labgrid's coordinator at {one_line(coordinator)}"
    if answer["error"] == MISSING:
        raise LabgridMissing(LABGRID_MISSING)
    if answer["error"] == UNREACHABLE:
        raise ServerUnreachable(f"{where} does not answer: is it running, and is that its address?")
    raise RemoteProtocolError(f"{where} cannot be asked: {one_line(str(answer.get('detail')))}")


def _command(coordinator: str, timeout: float) -> list[str]:
    """It finds packages where we do: what started us may have added places."""
    library = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = [library, *(place for place in sys.path if place and place != library)]
    code = f"import sys; sys.path[:] = {path!r}; from usbip_capture.coordinator.answering import main; "
    return [sys.executable, "-I", "-c", code + f"main({coordinator!r}, {timeout!r})"]
