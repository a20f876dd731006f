"""Registers `usbip://` with pyserial when a program imports it; started by `usbip-capture-serial.pth` with each Python.

So it must cost nothing: no import but what Python has loaded already, and nothing done until `serial` is imported.

Ref: Python documentation, site (path configuration files), 5.5 of the language reference (the meta path)
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # not from typing: each start of Python would pay for it
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PACKAGE = "usbip_capture.urlhandler"


class SerialFinder:
    """On the meta path until `serial` was found, whose loader it wraps."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders have, of `serial` only."""
        if name != "serial":
            return None
        uninstall()
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find is not None else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Registering(spec.loader)  # type: ignore[assignment]  # importing Loader costs 2 ms
                return spec
        return None


class _Registering:
    """The loader of `serial`, and the line that its documentation asks programs for."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Nobody shall notice that we were here.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        register(module)


def register(serial: ModuleType) -> None:
    """Add our handlers to pyserial's. No effect on a module of that name that is not pyserial."""
    packages = getattr(serial, "protocol_handler_packages", None)
    if isinstance(packages, list) and PACKAGE not in packages:
        packages.append(PACKAGE)


def install() -> None:
    """Have `register` called once pyserial is imported. Never raises: all of Python starts through here."""
    if "serial" in sys.modules:
        register(sys.modules["serial"])
    elif not any(type(finder).__name__ == SerialFinder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, SerialFinder())


def uninstall() -> None:
    """Remove the finder."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, SerialFinder)]
