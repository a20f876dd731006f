"""Whose standard output is: the rule for `-`, the same for every command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from usbip_capture.errors import LocalProtocolError

#: Arguments that name a file for a capture or a page, as they are typed.
_OPTIONS = {"pcap": "--pcap", "output": "-o", "html": "--html"}


@contextmanager
def text_beside_binary(args: argparse.Namespace) -> Iterator[None]:
    """Where `-` names the output, standard output is for it alone: all text goes to standard error in the block.

    What commands with -o print goes there always. Raises LocalProtocolError if something else wants standard output.
    """
    option = next((option for name, option in _OPTIONS.items() if getattr(args, name, None) == "-"), None)
    if option is None:
        yield
        return
    for other in ("json", "raw"):
        if getattr(args, other, False):
            raise LocalProtocolError(f"--{other} and {option} - both want standard output: leave one of them out")
    if option == "-o":
        yield
        return
    standard_output, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = standard_output
