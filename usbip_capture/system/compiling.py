"""The compiled build: what it needs to know about a class, and whether this is it."""

from __future__ import annotations

from importlib.machinery import PathFinder

TYPE_CHECKING = False  # not from typing: that module alone takes as long to import as all that `--version` needs
if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr  # the name that mypyc looks for; at run time nobody needs it
else:

    def mypyc_attr(**_):
        """Without effect in the interpreter: the class as it is."""
        return lambda decorated: decorated


def build() -> str:
    """What the modules of the hot path are here, as `--version` prints it; none of them is imported for that."""
    folder = __file__.replace("\\", "/").rpartition("/system/")[0]
    found = PathFinder.find_spec("usbip_capture.usb.urb", [f"{folder}/usb"])
    is_source = found is None or (found.origin or "").endswith(".py")
    return "pure Python" if is_source else "compiled"
