"""Whether labgrid's coordinator has places that Wireshark can list."""

from __future__ import annotations

from collections.abc import Iterator

from usbip_capture.coordinator.asking import LabgridMissing, asked
from usbip_capture.errors import ServerUnreachable, UsbipError
from usbip_capture.installation.health import OK, WARNING, Finding
from usbip_capture.servers import refresher
from usbip_capture.servers.configuration import (
    COORDINATOR_VARIABLE,
    LABGRID_TABLE,
    configuration_path,
    coordinator,
    coordinator_in_file,
)
from usbip_capture.servers.known_places import MAX_PLACES
from usbip_capture.system.shown import one_line

_LIMIT = 4.0


def check() -> Iterator[Finding]:
    """Nothing where no coordinator is configured."""
    where = coordinator()
    if not where:
        return
    try:
        places = asked(where, _LIMIT).places
    except LabgridMissing as error:
        sentence, _, remedy = str(error).partition(": ")
        yield Finding(WARNING, f"{sentence}: no place of {one_line(where)} is listed", remedy)
        return
    except UsbipError as error:
        sentence = str(error).partition(": ")[0] if isinstance(error, ServerUnreachable) else str(error)
        yield Finding(WARNING, sentence, "start it, or name another one in " + _named_in())
        return
    count = sum(len(place.devices) for place in places)
    named = ", ".join(one_line(place.name) for place in places[:MAX_PLACES]) or "none"
    text = f"labgrid's coordinator at {one_line(where)} has places with USB/IP devices: {named}"
    if count > MAX_PLACES:
        text += f" ...; Wireshark lists at most {MAX_PLACES} of {count}, others are typed as place:NAME"
    yield Finding(OK, text)
    if not coordinator_in_file():
        remedy = f'write coordinator = "{one_line(where)}" under [{LABGRID_TABLE}] in {configuration_path()}'
        yield Finding(WARNING, f"a Wireshark that the desktop starts does not have {COORDINATOR_VARIABLE}", remedy)
    if refresher.is_off():
        remedy = f"unset {refresher.DISCOVERY_VARIABLE}"
        yield Finding(WARNING, "places are not looked for: discovery is switched off", remedy)


def _named_in() -> str:
    return configuration_path() if coordinator_in_file() else COORDINATOR_VARIABLE
