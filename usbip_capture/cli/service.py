"""`usbip-capture serve --service`: a service of systemd that does the same, installed and removed."""

from __future__ import annotations

import argparse
import os

from usbip_capture.cli.exits import DONE
from usbip_capture.cli.terminal import print_lines, report
from usbip_capture.errors import LocalProtocolError

INSTALL, REMOVE, SHOW = "install", "remove", "show"
#: What means something else to a service, or nothing.
_NOT_OF_SERVICES = ("help", "live", "restore", "service")
_PATHS = ("pcap", "unix", "audit")


def add_service(parser: argparse.ArgumentParser) -> None:
    """The option."""
    parser.add_argument(
        "--service",
        nargs="+",
        metavar="WORD",
        help="install, remove or show a service of systemd with the other options: `install` or `install "
        "user` for you while you are logged in, `install system` for the machine (as root the default)",
    )


def run_service(args: argparse.Namespace) -> int:
    """Do it; the exit code. Raises UsbipError."""
    from usbip_capture.installation import service

    action, scope = _parsed(args.service)
    given = _arguments(args)
    if action == REMOVE:
        if given:
            raise LocalProtocolError(f"--service {REMOVE} goes alone")
        print_lines([service.remove(scope)])
        return DONE
    paths = [str(path) for name in _PATHS if (path := getattr(args, name, None)) and path != "-"]
    folders = [os.path.dirname(os.path.abspath(path)) for path in paths]
    text = service.unit_text(scope, given, folders)
    path = "" if args.device or args.classes or args.all else service.configuration_of(scope)
    if action == SHOW:
        print_lines(text.rstrip("\n").split("\n"))
        if path:
            report(
                f"without a rule, it needs exports = [...] under [server] in {path}; `--service install` writes that"
            )
        return DONE
    lines = []
    if path:
        from usbip_capture.configuration.exports import add_exports

        add_exports(path, [])  # it would not start without a list, empty perhaps
        lines = [f"what it exports is in {path}; `usbip-capture bind` adds to it"]
    print_lines([service.install(scope, text), *lines])
    return DONE


def _parsed(words: list[str]) -> tuple[str, str]:
    """Action and scope. Raises LocalProtocolError."""
    from usbip_capture.installation.service import SYSTEM, USER

    usual = SYSTEM if hasattr(os, "geteuid") and not os.geteuid() else USER
    action, scope = (*words, usual)[:2]
    if len(words) > 2 or action not in (INSTALL, REMOVE, SHOW) or scope not in (SYSTEM, USER):
        raise LocalProtocolError(
            f"--service takes {INSTALL}, {REMOVE} or {SHOW}, then {USER} or {SYSTEM}, not {' '.join(words)!r}"
        )
    return action, scope


def _arguments(args: argparse.Namespace) -> list[str]:
    """The options as they were given, each as one word."""
    found = []
    for action in args.parser._actions:
        value = getattr(args, action.dest, None)
        if action.dest in _NOT_OF_SERVICES or value == action.default or not action.option_strings:
            continue
        flag = action.option_strings[-1]
        if isinstance(action, argparse.BooleanOptionalAction):
            found.append(flag if not value else action.option_strings[0])
        elif value is True:
            found.append(flag)
        else:
            texts = map(str, value if isinstance(value, list) else [value])
            found += [
                f"{flag}={os.path.abspath(text) if action.dest in _PATHS and text != '-' else text}" for text in texts
            ]
    return found
