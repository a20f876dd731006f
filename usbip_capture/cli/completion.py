"""`usbip-capture completion`: the few lines that a shell needs to complete our command lines; and the completing."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable

from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import VALUED, add_command

_PROGRAM = "usbip-capture"
_SHELLS = ("bash", "zsh", "fish")
#: Of what stands before the command.
_BEFORE = "before "
_EXAMPLES = """\
  bash    echo 'eval "$(usbip-capture completion bash)"' >> ~/.bashrc
  zsh     echo 'eval "$(usbip-capture completion zsh)"' >> ~/.zshrc
  fish    usbip-capture completion fish > ~/.config/fish/completions/usbip-capture.fish

Then Tab completes commands, options, servers that are configured or were used, and
the busids they had.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "completion",
        "completion of command lines, for bash, zsh and fish",
        "Print the lines that make a shell complete the command lines of usbip-capture.",
        _EXAMPLES,
    )
    parser.add_argument("shell", choices=_SHELLS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them; the exit code."""
    from argcomplete.shell_integration import shellcode

    print(shellcode([_PROGRAM], shell=args.shell))
    return DONE


def complete() -> None:
    """A shell asks what may come next: answer, and end the process. Returns if it does not ask us.

    Ref: argcomplete, "argcomplete.autocomplete(parser)": the line so far is in COMP_LINE
    """
    from argcomplete import autocomplete

    from usbip_capture.cli.commands import COMMANDS, parser, split

    words = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT") or 0)].split()[1:]
    finished = words if os.environ.get("COMP_LINE", "").endswith(" ") else words[:-1]
    command, _ = split(finished)
    made = parser(command if command in COMMANDS else "")
    for flag in VALUED:  # which may stand before the command, too, whose own would hide them
        made.add_argument(flag, dest=f"{_BEFORE}{flag.removeprefix('--')}")
    for action in _actions(made):
        if action.dest in ("host", "servers", f"{_BEFORE}host"):
            action.completer = _servers  # type: ignore[attr-defined]
        elif action.dest == "server":
            action.completer = _first_words  # type: ignore[attr-defined]
        elif action.dest == "busid":
            action.completer = _exported  # type: ignore[attr-defined]
        elif action.dest == "running_server":
            action.completer = _running  # type: ignore[attr-defined]
        elif action.dest in ("device", "device_word"):
            action.completer = _busids  # type: ignore[attr-defined]
    autocomplete(made)


def _actions(parser: argparse.ArgumentParser) -> Iterable[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)


def _servers(**given: object) -> list[str]:
    from usbip_capture.servers.address import DEMO, LOCAL
    from usbip_capture.servers.known import known_servers

    return [
        DEMO,
        LOCAL,
        *dict.fromkeys(name for server in known_servers() for name in _names(server.name, server.address)),
    ]


def _first_words(parsed_args: argparse.Namespace, **given: object) -> list[str]:
    """HOST, or DEVICE where --host has named the server."""
    return _busids(parsed_args) if "device" in parsed_args and _host(parsed_args) else _servers()


def _host(parsed_args: argparse.Namespace) -> str:
    """As an option, before or behind the command; empty if it is not given."""
    return getattr(parsed_args, "host", None) or getattr(parsed_args, f"{_BEFORE}host", None) or ""


def _names(name: str, address: str) -> list[str]:
    return [address] if not name or " " in name or ":" in name else [name, address]


def _busids(parsed_args: argparse.Namespace, **given: object) -> list[str]:
    from usbip_capture.errors import UsbipError
    from usbip_capture.servers.address import DEMO, LOCAL, ServerAddress
    from usbip_capture.servers.known import read_cache

    host = _host(parsed_args) or getattr(parsed_args, "server", None) or ""
    try:
        server = ServerAddress.parse(host)
    except UsbipError:
        return []
    if server.host == DEMO:
        from usbip_capture.demo.device import BUSID

        return [BUSID]
    if server.host == LOCAL or server.is_recording:
        try:
            return [info.busid for info in server.devices()]
        except UsbipError:
            return []
    return [device.busid for device in read_cache().devices.get(server.place, [])]


def _running(**given: object) -> list[str]:
    from usbip_capture.control_socket.asking import running

    return [server.name for server in running()]


def _exported(parsed_args: argparse.Namespace, **given: object) -> list[str]:
    """Busids of the running server."""
    from usbip_capture.cli.commanding import rows
    from usbip_capture.control_socket.asking import find
    from usbip_capture.errors import UsbipError

    try:
        status = find(getattr(parsed_args, "running_server", None) or "").call("status")
    except UsbipError:
        return []
    return [str(device.get("busid")) for device in rows(status, "devices")]
