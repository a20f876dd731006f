"""Python runs this at its start in the programs of `usbip-capture use`: PyUSB then gets our backend for libusb's.

It stands alone in its folder, which is first on PYTHONPATH. Nothing of the package is imported before the program asks
for a backend; the program's own modules go before ours.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = os.path.dirname(os.path.abspath(__file__))
REPLACED = "usb.backend.libusb1"
#: Asked for by PyUSB when libusb 1 has no device: there is nothing else than the server.
EMPTY = ("usb.backend.libusb0", "usb.backend.openusb")


class BackendFinder:
    """Finds PyUSB's backends where they are, and replaces their `get_backend`."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """Called for each import; ours are three."""
        if name != REPLACED and name not in EMPTY:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            original = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                original(module)
                module.get_backend = no_backend if name in EMPTY else our_backend  # type: ignore[attr-defined]

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def no_backend(find_library: object = None) -> None:
    """As if the library were not installed."""


def our_backend(find_library: object = None) -> object:
    """The one backend of this process."""
    from usbip_capture.use.backend import shared_backend

    return shared_backend(json.loads(os.environ["USBIP_CAPTURE_USE"]))


def begin() -> None:
    """Take effect, and let the sitecustomize that this one hides run as well."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != FOLDER]
    # Last: what the program's own Python has goes before it.
    sys.path.extend(json.loads(os.environ["USBIP_CAPTURE_USE"])["packages"])
    sys.meta_path.insert(0, BackendFinder())
    hidden = PathFinder.find_spec("sitecustomize")
    if hidden is not None and hidden.loader is not None:
        module = ModuleType("sitecustomize")
        module.__spec__, module.__file__ = hidden, hidden.origin
        hidden.loader.exec_module(module)


if "USBIP_CAPTURE_USE" in os.environ:
    begin()
