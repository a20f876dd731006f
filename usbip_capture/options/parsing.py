"""The parser of both programs' command lines: what is wrong is one sentence, with what may have been meant."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import NoReturn

from usbip_capture.errors import LocalProtocolError

#: How the sentences of types begin that go on after the option's name.
_PREDICATES = ("must ", "needs ")
#: What a switch takes as its value; any other word after it may be HOST.
_SWITCHED = ("on", "off")


class Parser(argparse.ArgumentParser):
    """Raises LocalProtocolError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise `message`, argparse's, as a sentence."""
        raise LocalProtocolError(_sentence(message))

    def check_options(self, arguments: Iterable[str]) -> None:
        """Raises LocalProtocolError for an option that does not exist: before others are missed for its sake."""
        for argument in arguments:
            flag = argument.partition("=")[0]
            if argument == "--":
                return
            known = any(option.startswith(flag) for option in self._option_string_actions)
            if flag.startswith("--") and " " not in flag and not known:
                raise LocalProtocolError(self.unknown(argument))

    def switched(self, arguments: Iterable[str]) -> list[str]:
        """The arguments, with `--reconnect off` and `--reconnect=off`, as the plug-in has it, as `--no-reconnect`."""
        made: list[str] = []
        for argument in arguments:
            before = made[-1] if made else ""
            flag, equals, value = argument.partition("=") if argument.startswith("--") else (before, "", argument)
            action = self._option_string_actions.get(flag)
            if isinstance(action, argparse.BooleanOptionalAction) and value in _SWITCHED and flag[:5] != "--no-":
                del made[len(made) - (not equals) :]
                made.append(flag if value == "on" else f"--no-{flag[2:]}")
            else:
                made.append(argument)
        return made

    def unknown(self, argument: str) -> str:
        """What is wrong with an argument that was not understood."""
        if not argument.startswith("-") or argument == "-":
            return f"{argument!r} is one argument too many: see {self.prog} --help"
        flag = argument.partition("=")[0]
        return f"{flag} is not an option{meant(flag, self.flags()) or f': see {self.prog} --help'}"

    def flags(self) -> list[str]:
        """All options, as typed, but those that are only kept for old scripts."""
        shown = [action for action in self._actions if action.help != argparse.SUPPRESS]
        return [flag for action in shown for flag in action.option_strings]

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        hint = meant(str(value), known) or f": choose from {', '.join(known)}"
        raise argparse.ArgumentError(action, f"{value!r} is not a possible value{hint}")


def subparsers(parser: argparse.ArgumentParser) -> dict[str, Parser]:
    """The parser of each command, by its name."""
    (action,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


def meant(given: str, known: Iterable[str]) -> str:
    """`: did you mean --json?`; empty if nothing is near."""
    from difflib import get_close_matches

    names = {name.lstrip("-"): name for name in known}  # dashes are equal in all
    close = get_close_matches(given.lstrip("-"), list(names), 1)
    return f": did you mean {names[close[0]]}?" if close else ""


def _sentence(message: str) -> str:
    """argparse's message in the words of the others. Ref: Python 3.10 to 3.14, argparse.py"""
    if message.startswith("argument "):
        names, _, text = message.removeprefix("argument ").partition(": ")
        name = names.split("/")[0]
        if text.startswith("expected "):
            return f"{name} needs a value"
        if text.startswith("not allowed with argument "):
            return f"use either {name} or {text.rpartition(' ')[2].split('/')[0]}, not both"
        return f"{name} {text}" if text.startswith(_PREDICATES) else f"{name}: {text}"
    _, colon, names = message.partition(" required: ")
    if colon:
        missing = names.split(", ")
        return f"{_first_names(missing, ' and ')} {'is' if len(missing) == 1 else 'are'} missing"
    if message.startswith("one of the arguments "):
        options = message.removeprefix("one of the arguments ").removesuffix(" is required").split()
        return f"give {_first_names(options, ' or ')}"
    return message


def _first_names(names: list[str], between: str) -> str:
    return between.join(name.split("/")[0] for name in names)
