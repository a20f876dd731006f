"""Writes `reference.md` from the docstrings: `python docs/make_reference.py`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import usbip_capture

TARGET = Path(__file__).with_name("reference.md")
_HEAD = "Each of these is imported from `usbip_capture`. Made from the docstrings by `docs/make_reference.py`."
PUBLIC = list(usbip_capture._HOMES)


def reference() -> str:
    """The page."""
    parts = [f"# Reference\n\n{_HEAD}\n"]
    parts += [_described(name, getattr(usbip_capture, name)) for name in PUBLIC]
    return "\n".join(parts)


def _described(name: str, thing: object) -> str:
    kind = "class " if inspect.isclass(thing) else ""
    lines = [f"## {kind}usbip_capture.{name}\n", f"```\n{_signature(thing)}\n```\n", _text(thing)]
    if inspect.isclass(thing):
        lines += [_method(key, value) for key, value in vars(thing).items() if not key.startswith("_")]
    return "\n".join(line for line in lines if line)


def _method(name: str, member: object) -> str:
    if isinstance(member, (classmethod, staticmethod)):
        member = member.__func__
    text = _text(member)
    if not text or not (isinstance(member, property) or inspect.isfunction(member)):
        return ""
    signature = "" if isinstance(member, property) else f"```\n{_signature(member, name)}\n```\n\n"
    return f"### {name}\n\n{signature}{text}"


def _signature(thing: object, name: str = "") -> str:
    name = name or getattr(thing, "__name__", "")
    if not callable(thing):
        return name
    try:
        signature = str(inspect.signature(thing))
    except ValueError:
        return name
    signature = re.sub(r"ForwardRef\(('[^']*')\)", r"\1", signature)
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature).replace("(self, ", "(").replace("(self)", "()")
    return f"{name}{signature}"


def _text(thing: object) -> str:
    return f"{inspect.cleandoc(getattr(thing, '__doc__', None) or '')}\n".lstrip("\n")


if __name__ == "__main__":
    TARGET.write_text(reference())
