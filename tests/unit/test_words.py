"""What people read is plain technical English: words of the field, as CONTRIBUTING.md has them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import usbip_capture

PACKAGE = Path(usbip_capture.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
#: What is in no sentence of ours, and what is there instead.
WRONG = {
    r"(?<![Tt]here )\bis no (?!longer)": "is not a",
    r"(?<![Tt]here )\bare no (?!longer)": "are not",
    r"\b(given|gave|give|gives|giving) (it |them )?back\b": "release",
    r"\btaken back\b": "cancelled, unlinked",
    r"\bhanded over\b": "imported, sent",
    r"\bis away\b": "is disconnected",
}
#: Texts that filters, profiles or scripts of users match.
KEPT: frozenset[str] = frozenset()


def strings(path: Path) -> list[tuple[int, str]]:
    """The strings of a file with their lines, f-strings as their constant parts; docstrings are not for users."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_sentences_have_the_field_s_words(path: Path) -> None:
    for line, text in strings(path):
        for wrong, better in WRONG.items():
            found = re.search(wrong, text)
            assert not found or text in KEPT, f"line {line}: {found and found[0]!r}, use {better!r}: {text!r}"


#: What is in no docstring, comment or page either.
UNWELCOME = re.compile(r"\b(giv(e|es|ing)|gave|given|take|takes|taking|taken) back\b|\blet(s|ting)? go of\b")
PAGES = [*sorted((PACKAGE.parent / "docs").glob("*.md")), PACKAGE.parent / "README.md"]


@pytest.mark.parametrize("path", [*FILES, *PAGES], ids=lambda path: path.name)
def test_devices_are_released_and_urbs_unlinked(path: Path) -> None:
    for line, text in enumerate(path.read_text().splitlines(), 1):
        found = UNWELCOME.search(text)
        assert not found, f"line {line}: {found and found[0]!r}"
