"""What a guest for programs in Python has besides: Debian's Python, libusb and udev, and what those programs import.

An archive behind the rig's own in the initramfs; the kernel unpacks it over the first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from tests.kernel.rig.debian import unpacked, update_lists_without
from tests.kernel.rig.host import cache, output
from tests.kernel.rig.image import INIT, READY, Cpio, make, prepare, remove_older, shared_libraries

ZYGOTE_PORT = 5556
SITE = "site"  # the folder in the guest for what programs import

# libc and libm come from this machine, as the rig's own programs do.
_PACKAGES = [
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libffi8", "libexpat1", "zlib1g", "libssl3",
    "liblzma5", "libbz2-1.0", "libuuid1", "libgcc-s1", "libusb-1.0-0", "libudev1",
    "udev", "libkmod2", "libblkid1", "libacl1", "libselinux1", "libpcre2-8-0", "libcap2", "libzstd1",
]  # fmt: skip
_PYTHON = "usr/lib/python3.11"
_DROPPED = (
    "etc", "usr/share", "lib/udev", "lib/systemd/system",
    *(f"{_PYTHON}/{name}" for name in ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "sitecustomize.py", "tkinter")),
)  # fmt: skip
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")

#: Packages of the tests' own environment that programs in the guest import; those that are not there are left out.
_IMPORTED = ("usb1", "libusb_package", "importlib_resources", "pcapng")
#: Imported before the state is saved, since imports take seconds in emulation.
_PRELOADED = (
    "usb1", "libusb_package", "argparse", "ctypes", "dataclasses", "inspect", "json", "logging", "queue", "runpy",
    "selectors", "socket", "subprocess", "tempfile", "threading", "typing", "importlib.resources.readers",
    "importlib_resources.readers",
)  # fmt: skip

# Debian's libusb is notified of new devices by udevd, not by the kernel. Without rules udevd only passes events on.
_STARTED = f"""export PYTHONPATH=/{SITE}
mkdir -p /run/udev
/lib/systemd/systemd-udevd --daemon
python3 /bin/zygote.py {ZYGOTE_PORT} {" ".join(_PRELOADED)} &
until netstat -ltn | grep -q :{ZYGOTE_PORT}; do usleep 20000; done
"""


def prepare_python() -> tuple[Path, Path]:
    """Kernel and initramfs of a guest with Python, made when they are not in the cache. Raises RigError."""
    kernel, base = prepare()
    tree = debian_python()
    key = hashlib.sha256(repr((base.name, tree.name)).encode())
    for file in (Path(__file__), _zygote(), *_files(found_packages())):
        key.update(file.name.encode() + file.read_bytes())
    image = base.with_name(f"python-{key.hexdigest()[:12]}.cpio")
    make(image, lambda: base.read_bytes() + _overlay(tree))
    os.utime(image)
    remove_older(base.parent, "python-*.cpio")
    return kernel, image


def debian_python() -> Path:
    """The files of Debian's packages, with the standard library compiled: from the cache, or downloaded."""
    tree = cache() / f"python-{hashlib.sha256(repr((_PACKAGES, _DROPPED)).encode()).hexdigest()[:12]}"
    if not tree.exists():
        update_lists_without(_PACKAGES[0])
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            files = unpacked(_PACKAGES, Path(folder))
            for path in (files / name for name in _DROPPED):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            compile_all(files, files / _PYTHON)
            files.rename(tree)
    return tree


def compile_all(tree: Path, folder: Path, *options: str) -> None:
    """Compile with the guest's Python, here; not to be checked against the times of sources, which the image loses.

    options: more of compileall's.
    """
    libraries = ":".join(f"{tree}/{part}" for part in _LIBRARIES)
    environment = ("env", f"PYTHONHOME={tree}/usr", f"LD_LIBRARY_PATH={libraries}")
    python = tree / "usr/bin/python3.11"
    output(*environment, python, "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash", *options, folder)


def gathered(tree: Path, sources: list[Path], folder: Path, *, only_compiled: bool = False) -> None:
    """Copy modules and packages (folders) into a folder, compiled.

    only_compiled: without their sources, so that there are half as many files.
    """
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    compile_all(tree, folder, *(["-b"] if only_compiled else []))
    if only_compiled:
        for source in folder.rglob("*.py"):
            source.unlink()


def found_packages() -> list[Path]:
    """Those of `_IMPORTED` that are installed here."""
    found = []
    for name in _IMPORTED:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            found.append(Path(spec.submodule_search_locations[0]))
    return found


def _files(folders: list[Path]) -> list[Path]:
    return sorted(file for folder in folders for kind in ("*.py", "*.so") for file in folder.rglob(kind))


def _overlay(tree: Path) -> bytes:
    cpio = Cpio()
    ready = f'echo "{READY.decode()}"'
    cpio.file("init", INIT.replace(ready, _STARTED + ready).encode(), 0o755)
    cpio.file("bin/zygote.py", _zygote().read_bytes())
    cpio.link("usr/bin/python3", "python3.11")
    _add_tree(cpio, tree, "")
    for library in shared_libraries([str(tree / "usr/bin/python3.11")]):
        if not any((tree / part / os.path.basename(library)).exists() for part in _LIBRARIES):
            cpio.file(library, Path(library).read_bytes(), 0o755)
    cpio.folder(SITE)
    with tempfile.TemporaryDirectory() as folder:
        gathered(tree, found_packages(), Path(folder))
        _add_tree(cpio, Path(folder), SITE)
    return cpio.finish()


def _add_tree(cpio: Cpio, tree: Path, prefix: str) -> None:
    for path in sorted(tree.rglob("*")):
        name = f"{prefix}/{path.relative_to(tree)}"
        if path.is_symlink():
            cpio.link(name, os.readlink(path))
        elif path.is_file():
            cpio.file(name, path.read_bytes(), path.stat().st_mode & 0o777)


def _zygote() -> Path:
    return Path(__file__).with_name("zygote.py")
