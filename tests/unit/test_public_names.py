"""What the reference names is imported from the package itself, and costs nothing before it is asked for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import usbip_capture

ROOT = Path(__file__).parents[2]
REFERENCE = re.findall(r"^## (?:class )?usbip_capture\.(\w+)$", (ROOT / "docs/reference.md").read_text(), re.MULTILINE)


def test_the_reference_has_all_public_names() -> None:
    assert list(usbip_capture._HOMES) == REFERENCE
    assert sorted([*REFERENCE, "__version__"]) == usbip_capture.__all__
    assert set(usbip_capture.__all__) <= set(dir(usbip_capture))


@pytest.mark.parametrize("name", usbip_capture.__all__)
def test_a_public_name_is_there(name: str) -> None:
    value = getattr(usbip_capture, name)
    assert getattr(value, "__name__", name) == name
    with pytest.raises(AttributeError):
        getattr(usbip_capture, f"{name}_")


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import usbip_capture, sys; print(*(name for name in sys.modules if name.startswith('usbip')))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["usbip_capture"]
