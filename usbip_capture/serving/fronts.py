"""What stands upon a server and is loaded only where it is asked for: the dashboard, a room above this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from usbip_capture.errors import UsbipError

if TYPE_CHECKING:
    from usbip_capture.servers.server_table import ServerTable
    from usbip_capture.serving.local_server import LocalServer

_DASHBOARD = "usbip_capture.web.dashboard"


class Front(Protocol):
    """urls: where a browser of this machine finds it. link: signs in, once; empty if there were tokens before.

    addresses: where it listens. is_secure: by https.
    """

    urls: Sequence[str]
    link: str

    @property
    def addresses(self) -> Sequence[tuple[str, int]]: ...

    @property
    def is_secure(self) -> bool: ...

    def listed_tokens(self) -> Sequence[Mapping[str, object]]:
        """Names, roles and times of those that may sign in. Raises UsbipError, as the others do."""

    def add_token(self, name: str, role: str) -> Sequence[str]:
        """Links that sign in with a new one."""

    def remove_token(self, name: str) -> None:
        """Whoever uses it is signed out."""

    def close(self) -> None:
        """End all requests. May be called again."""


def opened_dashboard(server: LocalServer, settings: ServerTable) -> Front:
    """Raises LocalProtocolError, CannotListen, UsbipError."""
    try:
        module = import_module(_DASHBOARD)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("usbip_capture"):
            raise
        raise UsbipError(
            f"the dashboard needs the package {error.name}: pip install 'usbip-capture[server]'; or, where pipx has "
            "installed this, pipx inject usbip-capture starlette uvicorn wsproto"
        ) from error
    return cast("Front", module.Dashboard(server, settings))
