"""Runs programs of pyserial that know nothing of us, in a Python that has our .pth file among its site folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import usbip_capture.urlhandler

ROOT = Path(usbip_capture.__file__ or "").parents[1]
PTH = Path(next(iter(usbip_capture.urlhandler.__path__)), "usbip-capture-serial.pth")


def environment(folder: Path) -> dict[str, str]:
    """The environment of a program: what installing the package does, done with a site folder below `folder`."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    shutil.copy(PTH, site)
    (folder / "sitecustomize.py").write_text(f"import site; site.addsitedir({str(site)!r})\n")
    return dict(os.environ, PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)]), NO_COLOR="1", TERM="dumb")
