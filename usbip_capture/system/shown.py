"""A stranger's text, made fit for a person's screen and shell.

What a server, a device, a client or a file sends may hold control sequences, line
breaks and marks that turn the line around. It is cleaned where it leaves for a
terminal, a sentence, a hint, a log or a comment, not where it is received. Pure.
"""

from __future__ import annotations

#: What needs no quotes in any shell: busids, hosts and file names of honest people.
_UNQUOTED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@%+=:,./-_")


def one_line(text: str) -> str:
    r"""The text without anything that a terminal acts upon: what is not printable becomes its escape (\x1b, \u202e)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def lines(text: str) -> str:
    """The same for a text of several lines: its line feeds stay."""
    return "\n".join(one_line(line) for line in text.split("\n"))


def shell_word(text: str) -> str:
    """The text as one word of a command that a person will copy into a shell; control characters become escapes."""
    shown = one_line(text)
    if shown and shown[0] != "-" and _UNQUOTED.issuperset(shown):
        return shown
    return "'" + shown.replace("'", "'\"'\"'") + "'"


def _escape(character: str) -> str:
    # surrogatepass is not needed: unicode_escape writes lone surrogates, which undecodable bytes become, as \udcXX.
    return character.encode("unicode_escape").decode("ascii")
