"""The one capture of `usbip-esp32p4`, which is of all devices: here the latest that was begun by its paths.

Ref: github.com/DatanoiseTV/usbip-esp32p4, components/capture/capture_api.c
"""

from __future__ import annotations

from starlette.responses import StreamingResponse
from starlette.routing import BaseRoute

from usbip_capture.errors import LocalProtocolError
from usbip_capture.serving.capture_store import QUEUE_BYTES, CaptureStore
from usbip_capture.serving.stored_capture import RUNNING, CaptureFacts
from usbip_capture.web.api.captures import contents, store_of
from usbip_capture.web.api.devices import by
from usbip_capture.web.roles import LOOK, OPERATE
from usbip_capture.web.routing import Call, NotFound, api

_PREFIX = "/api/capture"
#: By which it is found again.
_NAME = "usbip"


def status(call: Call) -> object:
    """Zeros before the first one, or where captures cannot be kept."""
    store = call.side.server.captures
    facts = None if store is None else _latest(store)
    return {
        "card_present": store is not None,
        "capturing": facts is not None and facts.state == RUNNING,
        "filename": _filename(facts) if facts else "",
        "file_size": facts.bytes if facts else 0,
        "packet_count": (facts.packets or 0) if facts else 0,
        "dropped_count": facts.dropped if facts else 0,
        "ring_buf_used": 0,
        "ring_buf_size": QUEUE_BYTES,
    }


def start(call: Call) -> object:
    """Begin it. Raises LocalProtocolError while it runs."""
    store = store_of(call)
    facts = _latest(store)
    if facts is not None and facts.state == RUNNING:
        raise LocalProtocolError("Already capturing")
    return {"ok": True, "filename": _filename(store.start(name=_NAME, by=by(call)))}


def stop(call: Call) -> object:
    """End it, if it runs."""
    store = store_of(call)
    facts = _latest(store)
    if facts is not None and facts.state == RUNNING:
        store.stop(facts.id, by(call))
    return {"ok": True}


def download(call: Call) -> object:
    """Its file, as pcapng; what is in it so far, if it runs. Raises NotFound."""
    store = store_of(call)
    facts = _latest(store)
    if facts is None:
        raise NotFound("No capture file")
    headers = {"content-disposition": f'attachment; filename="{_filename(facts)}"', "cache-control": "no-store"}
    return StreamingResponse(contents(store.files(facts.id)), media_type="application/octet-stream", headers=headers)


def delete(call: Call) -> object:
    """Remove the latest one. Raises LocalProtocolError while it runs, NotFound."""
    store = store_of(call)
    facts = _latest(store)
    if facts is None:
        raise NotFound("No capture file to delete")
    if facts.state == RUNNING:
        raise LocalProtocolError("Stop capture first")
    store.delete(facts.id, by(call))
    return {"ok": True}


def _latest(store: CaptureStore) -> CaptureFacts | None:
    return next((facts for facts in store.captures if facts.name == _NAME), None)


def _filename(facts: CaptureFacts) -> str:
    return f"{facts.id}.pcapng"


ROUTES: list[BaseRoute] = [
    api("GET", "/status", status, LOOK, _PREFIX),
    api("POST", "/start", start, OPERATE, _PREFIX),
    api("POST", "/stop", stop, OPERATE, _PREFIX),
    api("GET", "/download", download, LOOK, _PREFIX),
    api("POST", "/delete", delete, OPERATE, _PREFIX),
]
