"""Debian's packages, downloaded and unpacked into a folder, never installed."""

from __future__ import annotations

import os
from pathlib import Path

from tests.kernel.rig.host import output


def unpacked(packages: list[str], scratch: Path) -> Path:
    """A folder in `scratch` with the files of packages (NAME or NAME=VERSION). Raises RigError."""
    # Without the sandbox user, who may not write to this folder.
    output("apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", *packages, cwd=scratch)
    tree = scratch / "tree"
    for package in sorted(scratch.glob("*.deb")):
        output("dpkg", "-x", package, tree)
    os.utime(tree)
    return tree


def update_lists_without(package: str) -> None:
    """Fetch the lists of packages if this package is not in them."""
    if not output("apt-cache", "search", "--names-only", f"^{package}$"):
        output("apt-get", "update", "-qq")
