"""The tokens by which people and programs sign in: listed, made, removed."""

from __future__ import annotations

from starlette.routing import BaseRoute

from usbip_capture.web.api.devices import by
from usbip_capture.web.roles import ADMINISTER
from usbip_capture.web.routing import Call, api


def listed(call: Call) -> object:
    """Their names and roles; created: seconds since 1970. own: which of them is used for this request."""
    tokens = [{"name": one.name, "role": one.role, "created": one.created} for one in call.side.tokens.all()]
    return {"tokens": tokens, "own": call.user.name}


def make(call: Call) -> object:
    """A token, and the link that signs in with it: both are shown this once."""
    name = call.text("name")
    token = call.side.add_token(name, call.text("role"), by(call))
    base = call.request.base_url
    outcome = f"the token {name} is made: keep its link, it is not shown again"
    return {"ok": True, "outcome": outcome, "token": token, "link": f"{base}?token={token}"}


def remove(call: Call) -> object:
    """Whoever uses it is signed out."""
    name = call.named("name")
    call.side.remove_token(name, by(call))
    return {"ok": True, "outcome": f"the token {name} is removed"}


ROUTES: list[BaseRoute] = [
    api("GET", "/tokens", listed, role=ADMINISTER),
    api("POST", "/tokens", make, role=ADMINISTER),
    api("DELETE", "/tokens", remove, role=ADMINISTER),
]
