"""Debian's kernel, unpacked and never installed: the image that QEMU boots, and its modules.

Ref: Linux Documentation/arch/x86/boot.rst; depmod(8)
"""

from __future__ import annotations

import lzma
import os
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.kernel.rig.debian import unpacked, update_lists_without
from tests.kernel.rig.host import KERNEL_PACKAGE, RigError, cache, output

_SIGNATURE_MAGIC = b"~Module signature appended~\n"


def fetch_kernel(*, update: bool = False) -> Path:
    """The unpacked files of the kernel package, downloaded when there are none.

    update: also when there are, if the distribution has newer ones.
    """
    folder = cache()
    cached = sorted(folder.glob("linux-image-*"), key=os.path.getmtime)
    if cached and not update:
        return cached[-1]
    package, version = _candidate()
    tree = folder / f"{package}_{version}"
    if not tree.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            files = unpacked([f"{package}={version}"], Path(scratch))
            output("depmod", "-b", files, modules_dir(files).name)
            files.rename(tree)
    return tree


def extract_vmlinux(bzimage: bytes) -> bytes:
    """The ELF file in a bzImage: booting it saves the guest from decompressing it, which takes seconds in emulation."""
    setup_sects = bzimage[0x1F1] or 4
    payload_offset, payload_length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sects + 1) * 512 + payload_offset
    elf = lzma.LZMADecompressor().decompress(bzimage[start : start + payload_length])
    if not elf.startswith(b"\x7fELF"):
        raise RigError("the kernel package holds no ELF kernel packed with xz")
    return elf


def strip_signature(module: bytes) -> bytes:
    """Unsigned modules load sooner: nothing to hash in emulation."""
    if not module.endswith(_SIGNATURE_MAGIC):
        return module
    end = len(module) - len(_SIGNATURE_MAGIC)
    (signature_length,) = struct.unpack(">I", module[end - 4 : end])
    return module[: end - 12 - int(signature_length)]


def modules_dir(tree: Path) -> Path:
    """`lib/modules/RELEASE` of an unpacked kernel."""
    (folder,) = (tree / "lib/modules").iterdir()
    return folder


def module_closure(folder: Path, names: Iterable[str]) -> list[str]:
    """Paths below `folder` of the modules and of what they need, in loading order. Raises RigError for unknown ones."""
    depends: dict[str, list[str]] = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        depends[path] = needs.split()
    by_name = {_module_name(path): path for path in depends}
    builtin = {_module_name(path) for path in (folder / "modules.builtin").read_text().split()}
    order: dict[str, None] = {}
    for name in (name.replace("-", "_") for name in names):
        if name in by_name:
            path = by_name[name]
            order |= dict.fromkeys([*reversed(depends[path]), path])  # modules.dep: needed first, listed last
        elif name not in builtin:
            raise RigError(f"the kernel has no module {name}")
    return list(order)


def _module_name(path: str) -> str:
    return Path(path).stem.replace("-", "_")


def _candidate() -> tuple[str, str]:
    """The package that the distribution's current kernel is in, and its version."""
    update_lists_without(KERNEL_PACKAGE)
    depends = output("apt-cache", "depends", KERNEL_PACKAGE).splitlines()
    package = next(line.split()[-1] for line in depends if "Depends: linux-image-" in line)
    policy = output("apt-cache", "policy", package).splitlines()
    return package, next(line.split()[-1] for line in policy if "Candidate" in line)
