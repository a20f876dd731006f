"""Single values of a command line, without argparse: that alone takes longer than an answer may."""

from __future__ import annotations


def value_of(argv: list[str], name: str) -> str | None:
    """What follows `name` (or `name=`), the last time it is given; None when it is not, `""` when nothing follows."""
    found = None
    for index, argument in enumerate(argv):
        if argument == name:
            found = argv[index + 1] if index + 1 < len(argv) else ""
        elif argument.startswith(name + "="):
            found = argument[len(name) + 1 :]
    return found
