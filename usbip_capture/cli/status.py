"""`usbip-capture status`: what the running server exports, and where."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from usbip_capture.cli.access import counted
from usbip_capture.cli.commanding import add_running_server, columns, rows, running_server
from usbip_capture.cli.exits import DONE
from usbip_capture.cli.groups import add_command, add_json
from usbip_capture.cli.terminal import print_lines
from usbip_capture.cli.turns import reserved
from usbip_capture.system.shown import shell_word

if TYPE_CHECKING:
    from usbip_capture.live.messages import Message

_ABOUT = "Show where the server that you run here listens, what it is to export, what it exports now, and who has it."
_EXAMPLES = """\
  usbip-capture status
  usbip-capture status --json | jq -r '.devices[].busid'
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "status", "what the running server exports, and where", _ABOUT, _EXAMPLES)
    add_running_server(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print it; the exit code. Raises UsbipError."""
    server = running_server(args)
    answer = server.call("status")
    answer.pop("ok", None)
    if args.json:
        print(json.dumps(answer, indent=2))
        return DONE
    places = ", ".join(filter(None, [_listed(answer, "addresses"), str(answer.get("unix") or "")]))
    called = "" if server.name == answer.get("name") else f"--server {shell_word(server.name)}, "
    by = f"by {answer.get('configuration')}" if answer.get("follows") else "by its command line"
    print_lines(
        [
            f"{answer.get('name')} ({called}process {answer.get('pid')}) at {places}",
            f"exports, {by}: {_listed(answer, 'rules') or 'nothing'}",
            f"access: {answer.get('mode')}, {counted(answer)}{_paired(answer)}",
        ]
    )
    if _listed(answer, "tls"):
        print_lines([f"with TLS at {_listed(answer, 'tls')}; the certificate is {answer.get('fingerprint')}"])
    if _listed(answer, "web"):
        print_lines([f"dashboard: {_listed(answer, 'web')}"])
    devices = rows(answer, "devices")
    if devices:
        print_lines(f"  {line}" for line in columns([_row(device) for device in devices]))
    print_lines(line for output in rows(answer, "audit") if (line := _audit(output)))
    return DONE


def _paired(answer: Message) -> str:
    """What paired clients may have besides."""
    return f", and for clients that are paired: {found}" if (found := _listed(answer, "paired_rules")) else ""


def _audit(output: Message) -> str:
    """What is wrong with one of the outputs of the audit, if anything is."""
    lost, trouble = output.get("lost"), output.get("trouble")
    parts = [f"{lost} events are missing"] if lost else []
    parts += [f"it cannot be written now: {trouble}"] if trouble else []
    return f"audit, {output.get('target')}: {'; '.join(parts)}" if parts else ""


def _listed(answer: Message, name: str) -> str:
    found = answer.get(name)
    return ", ".join(map(str, found)) if isinstance(found, list) else ""


def _row(device: Message) -> list[str]:
    client = device.get("client")
    state = f"client {client}" if client else "free"
    reservation = reserved(device)
    if reservation:
        state += f", reserved {reservation}"
    return [*(str(device.get(name, "")) for name in ("busid", "vid_pid", "product", "serial")), state]
