"""The rig by hand: `python -m tests.kernel.rig boot --plug kbd --plug storage@ehci,file=disk.img`."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tests.kernel.rig.agent import run_in_guest
from tests.kernel.rig.devices import DEVICES
from tests.kernel.rig.fakedev import FakeDevice
from tests.kernel.rig.guest import Guest
from tests.kernel.rig.host import RigError
from tests.kernel.rig.image import prepare


def main() -> int:
    args = _parser().parse_args()
    try:
        if args.command == "prepare":
            print(*prepare(update=args.update), sep="\n")
        elif args.command == "boot":
            _boot(args)
        else:
            result = run_in_guest(args.agent_port, args.shell_command, check=False)
            sys.stdout.buffer.write(result.stdout)
            return result.returncode
    except (RigError, OSError) as error:
        print(f"rig: {error}", file=sys.stderr)
        return 1
    return 0


def _boot(args: argparse.Namespace) -> None:
    """Run a guest until interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        guest = stack.enter_context(Guest(usbip_port=args.port, snapshot=not args.cold))
        busids = [_plug(guest, stack, text, export=not args.no_export) for text in args.plug]
        if args.gadget:
            guest.gadget(args.gadget.split(","))
            busids.append("usbip-vudc.0")
        attached = [guest.attach(int(port), busid) for port, busid in (spec.split("/") for spec in args.attach)]
        info: dict[str, Any] = {
            "usbip_port": guest.usbip_port,
            "gadget_port": guest.gadget_port,
            "agent_port": guest.agent_port,
            "start_seconds": round(guest.start_seconds, 2),
            "busids": busids,
            "attached": attached,
        }
        print(json.dumps(info), flush=True)
        guest.wait_closed()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _plug(guest: Guest, stack: contextlib.ExitStack, text: str, *, export: bool) -> str:
    """KIND[@BUS][,KEY=VALUE...]"""
    head, *rest = text.split(",")
    kind, _, bus = head.partition("@")
    options = dict(item.split("=", 1) for item in rest)
    paths = {key: Path(value) for key, value in options.items() if key in ("file", "socket")}
    if kind == "fake":
        path = guest.folder / f"fake-{len(list(guest.folder.glob('fake-*')))}"
        fake = FakeDevice(path, high_speed=options.get("speed") == "high")
        stack.callback(fake.close)
        kind, paths = "redir", {"socket": path}
    busid = guest.plug(kind, bus or "xhci", **paths)
    return guest.export(busid) if export and kind != "hub" else busid


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.kernel.rig", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare_parser = commands.add_parser("prepare", help="download and build what is missing")
    prepare_parser.add_argument("--update", action="store_true", help="look for a newer kernel")
    boot = commands.add_parser("boot", help="run a guest until interrupted; prints its ports as JSON")
    boot.add_argument("--port", type=int, default=0, help="where usbipd answers on 127.0.0.1")
    boot.add_argument(
        "--plug",
        action="append",
        default=[],
        metavar="KIND[@BUS][,KEY=VALUE...]",
        help=f"{', '.join(DEVICES)} or fake (speed=high); e.g. storage@ehci,file=disk.img",
    )
    boot.add_argument("--no-export", action="store_true", help="leave the devices to the guest's own drivers")
    boot.add_argument("--gadget", metavar="FUNCTION,...", help="a usbip-vudc gadget, e.g. acm.0,SourceSink.0")
    boot.add_argument(
        "--attach", action="append", default=[], metavar="PORT/BUSID", help="attach a device of a server on this host"
    )
    boot.add_argument("--cold", action="store_true", help="neither use nor save a state")
    run = commands.add_parser("run", help="run a command in a running guest")
    run.add_argument("agent_port", type=int)
    run.add_argument("shell_command")
    return parser


if __name__ == "__main__":
    sys.exit(main())
