"""Test suites of others, and their data, from the source distributions of the versions that are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest


def own_suite(package: str, tests: str, library: str, folder: Path) -> Path:
    """The folder `tests` of the package's source distribution, without `library`, its code: the installed one is used.

    Skips where it cannot be downloaded. What pip wants to build of it is in the group `test`: an environment made for
    that costs more than the suite.
    """
    wanted = f"{package}=={version(package)}"
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "-q"]
    command = [sys.executable, "-m", "pip", "download", *options, wanted]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{wanted} cannot be downloaded as source: {done.stderr.strip().splitlines()[-1:]}")
    (archive,) = folder.glob(f"{package}-*.tar.gz")
    subprocess.run([sys.executable, "-m", "tarfile", "-e", str(archive), str(folder)], check=True)
    (found,) = folder.glob(f"{package}-*/{tests}")
    shutil.rmtree(found.parent / library)
    return found
