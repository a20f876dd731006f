"""Signing in, signing out, and who one is."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.routing import BaseRoute

from usbip_capture.web.roles import ANYONE, LOOK, Refused, User
from usbip_capture.web.routing import Call, api
from usbip_capture.web.sign_in import SignIn


def _login(call: Call) -> object:
    """Sign a browser in by a token."""
    response = JSONResponse({})
    user = _sign_in(call).sign_in(call.request, call.text("token"), response)
    response.body = JSONResponse(_of(user)).body
    response.headers["content-length"] = str(len(response.body))
    return response


def _logout(call: Call) -> object:
    """Sign a browser out."""
    response = JSONResponse({"ok": True, "outcome": "signed out"})
    _sign_in(call).sign_out(call.request, response)
    return response


def _me(call: Call) -> object:
    """Who one is."""
    return _of(call.user)


def _of(user: User) -> dict[str, str]:
    return {"name": user.name, "role": user.role}


def _sign_in(call: Call) -> SignIn:
    if call.side.sign_in is None:
        raise Refused("nobody can sign in here")
    return call.side.sign_in


ROUTES: list[BaseRoute] = [
    api("POST", "/login", _login, ANYONE),
    api("POST", "/logout", _logout, ANYONE),
    api("GET", "/me", _me, LOOK),
]
