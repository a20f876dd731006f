"""What people read is plain technical English: words of the field, as CONTRIBUTING.md has them."""

from __future__ import annotations

import ast
import re
import tokenize
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


#: What is in no name, docstring, comment or page either: programs report, log, print and notify.
OLD = re.compile(
    r"\b(tell|tells|told|telling|say|says|said|saying)\b"
    r"|\b(give|gives|giving|gave|given|take|takes|taking|taken) (it |them |the device )?back\b"
    r"|\b(hand|hands|handed|handing) (it |them )?over\b|\blet(s|ting)? go of\b"
    r"|\b(go|goes|going|gone|went|take|takes|taken|is|be) away\b",
    re.IGNORECASE,
)
#: Where the English is right, or a text of the Wireshark profile stays as it was installed.
ALLOWED = re.compile(
    r"\b(say|says) to each other\b|handing over to another thread|hands over to another one"
    r"|profile remove takes it away"
)
PAGES = [*sorted((PACKAGE.parent / "docs").glob("*.md")), PACKAGE.parent / "README.md"]


def texts(path: Path) -> list[tuple[int, str]]:
    """Comments, strings and names of a program, with names as their words; the lines of a page."""
    if path.suffix != ".py":
        return list(enumerate(path.read_text().splitlines(), 1))
    with path.open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    found = [(token.start[0], token.string.replace("_", " ")) for token in tokens if token.type == tokenize.NAME]
    return found + [
        (token.start[0] + number, line)
        for token in tokens
        if token.type not in (tokenize.NAME, tokenize.ENCODING)
        for number, line in enumerate(token.string.split("\n"))
    ]


@pytest.mark.parametrize("path", [*FILES, *PAGES], ids=lambda path: path.name)
def test_names_and_comments_have_the_field_s_words(path: Path) -> None:
    for line, text in texts(path):
        found = OLD.search(ALLOWED.sub("", text))
        assert not found, f"line {line}: {found and found[0]!r}: {text.strip()!r}; CONTRIBUTING.md has the words"
