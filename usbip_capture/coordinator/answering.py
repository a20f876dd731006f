"""The process that asks a coordinator, by labgrid's own protocol: prints what it has as JSON, and ends.

labgrid and gRPC take half a second to import, and have threads that cannot be interrupted: who asks does without.

Ref: labgrid 26, remote/client.py (ClientSession), remote/proto/labgrid-coordinator.proto
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from getpass import getuser
from importlib import import_module
from socket import gethostname
from typing import Any

#: What is printed instead of an answer; `detail` has the reason of FAILED.
MISSING, UNREACHABLE, FAILED = "missing", "unreachable", "failed"
_DEFAULT_PORT = 20408
_CLASS = "NetworkUsbipDevice"


def main(address: str, timeout: float) -> None:
    """Print the answer, or what went wrong: {"error": KIND, "detail": TEXT}. Does not return."""
    try:
        answer = _asked(address, timeout)
    except ImportError as error:
        answer = {"error": MISSING, "detail": str(error)}
    except Exception as error:  # noqa: BLE001  whatever it is, who asks gets it
        answer = {"error": _kind(error), "detail": _detail(error)}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # gRPC's threads are not waited for


def _asked(address: str, timeout: float) -> dict[str, Any]:
    messages = import_module("labgrid.remote.generated.labgrid_coordinator_pb2")
    stubs = import_module("labgrid.remote.generated.labgrid_coordinator_pb2_grpc")
    grpc = import_module("grpc")
    proxymanager = import_module("labgrid.util.proxy").proxymanager
    address = proxymanager.get_grpc_address(address, default_port=_DEFAULT_PORT)  # by ssh where LG_PROXY is set
    done = threading.Event()
    with grpc.insecure_channel(address) as channel:
        stream = stubs.CoordinatorStub(channel).ClientStream(_requests(messages, done), timeout=timeout)
        updates: list[Any] = []
        for message in stream:
            updates += message.updates
            if message.HasField("sync"):
                break
        done.set()
        stream.cancel()
    return _answer(updates)


def _requests(messages: Any, done: threading.Event) -> Iterator[Any]:
    """All that a client of labgrid sends first; the stream stays open until the answer is complete."""
    startup = messages.ClientInMessage()
    startup.startup.version = import_module("labgrid.util.version").labgrid_version()
    startup.startup.name = _own_name()
    places, resources, sync = (messages.ClientInMessage() for _ in range(3))
    places.subscribe.all_places = True
    resources.subscribe.all_resources = True
    sync.sync.id = 1
    yield from (startup, places, resources, sync)
    done.wait()


def _own_name() -> str:
    """By which labgrid knows this user."""
    return f"{os.environ.get('LG_HOSTNAME', gethostname())}/{os.environ.get('LG_USERNAME') or getuser()}"


def _answer(updates: list[Any]) -> dict[str, Any]:
    common = import_module("labgrid.remote.common")
    resources: dict[tuple[str, ...], dict[str, Any]] = {}
    places = {}
    for update in updates:
        kind = update.WhichOneof("kind")
        if kind == "resource" and update.resource.cls == _CLASS:
            path = update.resource.path
            key = (path.exporter_name, path.group_name, update.resource.cls, path.resource_name)
            resources[key] = common.ResourceEntry.data_from_pb2(update.resource)["params"]
        elif kind == "place":
            places[update.place.name] = common.Place.from_pb2(update.place)
    answered = [_place(place, resources) for place in places.values()]
    taken = {device["path"] for place in answered for device in place["devices"]}
    others = [_device(key, params, key[3]) for key, params in resources.items() if "/".join(key) not in taken]
    return {"places": answered, "others": others}


def _place(place: Any, resources: dict[tuple[str, ...], dict[str, Any]]) -> dict[str, Any]:
    own = _own_name()
    devices = []
    for key, params in resources.items():
        match = place.getmatch(key)
        if match is None or (place.acquired and list(key) not in place.acquired_resources):
            continue
        devices.append(_device(key, params, match.rename or key[3]))
    return {
        "name": place.name,
        "holder": place.acquired or "",
        "is_ours": place.acquired == own or own in place.allowed,
        "devices": devices,
    }


def _device(key: tuple[str, ...], params: dict[str, Any], name: str) -> dict[str, Any]:
    extra = params.get("extra") or {}
    proxy = extra.get("proxy") if extra.get("proxy_required") else ""
    known = {field: params.get(field) for field in ("host", "port", "busid")}
    texts = {field: extra.get(field) for field in ("device", "dashboard")}
    return {"path": "/".join(key), "name": name, **known, **texts, "proxy": proxy}


def _kind(error: Exception) -> str:
    code = getattr(error, "code", None)
    name = getattr(code(), "name", "") if callable(code) else ""
    return UNREACHABLE if name in ("UNAVAILABLE", "DEADLINE_EXCEEDED") else FAILED


def _detail(error: Exception) -> str:
    details = getattr(error, "details", None)
    return str(details() if callable(details) else error) or type(error).__name__
