"""What a server, a device or a log sends holds nothing that a terminal acts upon, whichever command shows it.

Every command of the table has its lines here: a new one fails until it has.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders.tcp_recording import recording, segments
from tests.builders.usbip_sessions import BULK_IN, INFO, imported, reply, submit
from tests.fakes.evil_server import EVIL, EVIL_BUSIDS, GOOD, REFUSED, UNKNOWN_STATUS, EvilServer
from tests.oracles.pcapng_reader import CapturedInterface, CapturedRecord, read_items
from tests.programs.commands import command_environment, run_line
from usbip_capture.cli.commands import COMMANDS
from usbip_capture.cli.discover import lines
from usbip_capture.cli.terminal import Paint
from usbip_capture.control_socket.serving import ControlSocket, Handler
from usbip_capture.errors import DeviceNotFound
from usbip_capture.live.messages import Message
from usbip_capture.servers.mdns import DiscoveredServer
from usbip_capture.usb.urb import Completion, TransferType, Urb

DEVICES = (*EVIL_BUSIDS, GOOD, REFUSED, UNKNOWN_STATUS, "9-9")
CONTROL = ("--bm-request-type", "0x80", "--b-request", "6", "--w-value", "0x302", "--length", "255")
SYSLOG = ("--syslog", "--syslog-port", "LOGPORT")
ENDED = None
#: Command -> its arguments, and what it prints before it is ended by a signal; ENDED where it ends by itself.
#: EVIL is the server, LOG its log, EVERY stands for each device.
LINES: dict[str, list[tuple[list[str], str | None]]] = {
    "discover": [(["--timeout", "0.1"], ENDED), (["--timeout", "0.1", "--json"], ENDED)],
    "list": [
        (["EVIL"], ENDED),
        (["EVIL", "-t"], ENDED),
        (["EVIL", "-v", *SYSLOG], ENDED),
        (["EVIL", "-v", "--pcap", "list.pcapng"], ENDED),
        (["EVIL", "-v", "--json"], ENDED),
        (["--mdns-timeout", "0.1"], ENDED),
    ],
    # What dashboards say is in test_fleet_command.py.
    "fleet": [
        (["EVIL", EVIL], ENDED),
        (["EVIL"], ENDED),
        (["EVIL", "--tree"], ENDED),
        (["EVIL", "--json"], ENDED),
        (["--mdns-timeout", "0.1", "--discover"], ENDED),
        (["stats", "EVIL"], ENDED),
    ],
    # What devices of this machine say is in test_local.py.
    "local": [([], ENDED), (["-t"], ENDED), (["-v"], ENDED), (["--json"], ENDED)],
    "probe": [
        (["EVIL"], ENDED),
        (["EVIL", "--device", "EVERY", "--get-device-desc", *SYSLOG], ENDED),
        (["EVIL", "--device", "EVERY", "--json"], ENDED),
        (["EVIL", "--device", GOOD, "--pcap", "probe.pcapng", *SYSLOG], ENDED),
    ],
    "control": [(["EVIL", "--device", "EVERY", *CONTROL, *SYSLOG], ENDED)],
    "read": [(["EVIL", "--device", "EVERY", "--ep", "0x83", "--timeout", "0.1", *SYSLOG], ENDED)],
    "write": [(["EVIL", "--device", "EVERY", "--ep", "0x04", "--text", EVIL, "--timeout", "0.1", *SYSLOG], ENDED)],
    "capture": [
        (["EVIL", "-o", "one.pcapng"], ENDED),
        (["EVIL", "--device", "all", "-o", "all.pcapng", "--count", "60", "--live", *SYSLOG], ENDED),
        (["EVIL", "--device", "EVERY", "--count", "20", "--duration", "1", "--no-reconnect"], ENDED),
    ],
    "ports": [(["EVIL", *SYSLOG], ENDED), (["EVIL", "--json"], ENDED)],
    "serial": [
        (["EVIL", "EVERY", "--tcp", "not a port"], ENDED),
        (["EVIL", "", "--tcp", "0"], ENDED),
        (["EVIL", REFUSED, "--tcp", "0"], ENDED),
        (["EVIL", GOOD, "--tcp", "0"], "the serial port is at"),
    ],
    "attach": [(["EVIL"], ENDED), (["EVIL", "missing\x1b[2J"], ENDED)],
    "detach": [(["missing\x1b[2J"], ENDED)],
    "attached": [([], ENDED), (["--json"], ENDED)],
    "syslog": [(["LOG"], "owned"), (["LOG", "--json"], "owned"), (["LOG", "--pcap", "log.pcapng"], "owned")],
    "relay": [(["EVIL", "--listen", "127.0.0.1:0", "-o", "relay.pcapng"], "relaying")],
    "stats": [
        (["evil.pcapng"], ENDED),
        (["evil.pcapng", "--json"], ENDED),
        (["evil.pcapng", "--html", "page.html"], ENDED),
        (["missing\x1b[2J"], ENDED),
    ],
    "convert": [(["evil.pcap", "converted.pcapng"], ENDED), (["evil.pcap", "-", "--format", "text"], ENDED)],
    "replay": [(["missing\x1b[2J"], ENDED), (["evil.pcapng", "--device", EVIL, "--listen", "127.0.0.1:0"], ENDED)],
    "compare": [
        (["evil.pcapng", "evil.pcapng"], ENDED),
        (["evil.pcapng", "evil.pcapng", "--json"], ENDED),
        (["evil.pcapng", "evil.pcapng", "--html", "page.html"], ENDED),
        (["missing\x1b[2J", EVIL], ENDED),
    ],
    "use": [
        (["EVIL", "--device", "EVERY", "--", "python3", "-c", "import usb.core; usb.core.find()"], ENDED),
        (["EVIL", *SYSLOG, "--", "python3", "-c", "import usb.core; usb.core.find()"], ENDED),
        (["EVIL", "--", "missing\x1b[2J"], ENDED),
    ],
    "selftest": [(["EVIL"], ENDED), (["EVIL", "--device", "EVERY"], ENDED)],
    "demo": [(["--listen", "127.0.0.1:0", "--syslog-listen", "127.0.0.1:0", "--lsusb", "devices"], "Serving")],
    "config": [([], ENDED), (["--json"], ENDED)],
    "completion": [(["bash"], ENDED)],
    "serve": [(["--device", EVIL], ENDED), (["--class", EVIL], ENDED), (["--service", EVIL], ENDED)],
    "labgrid-exporter": [(["missing\x1b[2J"], ENDED), ([EVIL], ENDED)],
    # What devices of this machine say is in test_labgrid_commands.py.
    "labgrid-config": [([], ENDED), (["--allow", EVIL], ENDED)],
    "status": [([], ENDED), (["--json"], ENDED), (["--server", EVIL], ENDED)],
    "clients": [([], ENDED), (["--json"], ENDED)],
    "events": [([], ENDED), (["--json"], ENDED)],
    "access": [(["show"], ENDED), (["show", "--json"], ENDED), (["allow", EVIL], ENDED), (["open"], ENDED)],
    "reserve": [(["--list"], ENDED), (["1-1", "--for", "2h"], ENDED), ([EVIL, "--for", EVIL], ENDED)],
    "release": [([EVIL], ENDED)],
    "pair": [
        (["EVIL", "ABCD-EFGH-JKLM"], ENDED),
        ([EVIL, EVIL], ENDED),
        (["--list"], ENDED),
        (["--remove", EVIL], ENDED),
    ],
    "token": [([EVIL], ENDED), (["--list"], ENDED), (["--remove", EVIL], ENDED)],
    "trust": [(["EVIL"], ENDED), ([EVIL, EVIL], ENDED), (["--list"], ENDED)],
    "tunnel": [(["EVIL", "--stdio"], ENDED), ([EVIL], ENDED)],
    "kick": [([EVIL], ENDED)],
    "reset": [([EVIL], ENDED)],
    "power": [([EVIL, "cycle"], ENDED)],
    "bind": [(["1-1.4"], ENDED), ([EVIL], ENDED)],
    "unbind": [(["1-1.4"], ENDED), ([EVIL], ENDED)],
}
CASES = [
    pytest.param(
        command,
        [device if argument == "EVERY" else argument for argument in arguments],
        until,
        id=f"{command} {at}" + (f" {device!a}" if "EVERY" in arguments else ""),
    )
    for command, lines in LINES.items()
    for at, (arguments, until) in enumerate(lines)
    for device in (DEVICES if "EVERY" in arguments else ("",))
]


def acted_upon(text: str) -> set[str]:
    """What of it a terminal acts upon."""
    return {character for character in text if not character.isprintable()} - {"\n"}


def check(text: str) -> None:
    """It is clean, and no line pretends to be one of ours."""
    assert acted_upon(text) == set(), ascii(text)
    assert not [line for line in text.splitlines() if line.startswith("usbip-capture: owned")], text


@pytest.fixture(scope="module")
def evil() -> Iterator[EvilServer]:
    with EvilServer() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, evil: EvilServer) -> Path:
    """With evil files of each kind, and an evil configuration."""
    made = tmp_path_factory.mktemp("evil")
    (made / "devices").mkdir()
    (made / "devices" / "2-1.lsusb").write_text(run_line("usbip-capture list demo -v", made).stdout)
    (made / "config" / "usbip-capture").mkdir(parents=True)
    (made / "config" / "usbip-capture" / "config.toml").write_text(
        f'[servers]\n{json.dumps("x" + EVIL)} = "{evil.host}"\n{json.dumps("y" + EVIL)} = {json.dumps(EVIL)}\n'
    )
    (made / "evil.pcap").write_bytes(tcp_of_an_evil_session())
    done = run(made, evil, "capture", ["EVIL", "--device", "all", "--count", "100", "-o", "evil.pcapng", *SYSLOG])
    assert (made / "evil.pcapng").exists(), done
    return made


def tcp_of_an_evil_session() -> bytes:
    urb = Urb(TransferType.BULK, BULK_IN, 64)
    turns = [
        *imported(replace(INFO, busid=EVIL_BUSIDS[0], path=EVIL)),
        submit(1, urb),
        reply(1, urb, Completion(0, 8, b"\x1b[2J\x07abc")),
        submit(2, urb),
        (1, EVIL.encode() * 4),  # nothing of USB/IP: where the session ends
    ]
    return recording(segments(turns))


def run(
    folder: Path, evil: EvilServer, command: str, arguments: list[str], until: str | None = ENDED
) -> tuple[str, int]:
    places = {"EVIL": evil.host, "LOG": f"127.0.0.1:{evil.log_port}", "LOGPORT": str(evil.log_port)}
    with subprocess.Popen(
        ["usbip-capture", command, *(places.get(argument, argument) for argument in arguments)],
        cwd=folder,
        env=command_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        output = b""
        if until is not None:
            while until.encode() not in output and (line := process.stdout.readline()):
                output += line
            process.send_signal(signal.SIGINT)
        output += process.communicate(timeout=60)[0]
    return output.decode(), process.returncode


def test_every_command_is_here() -> None:
    assert LINES.keys() == COMMANDS.keys()


def _refusing(request: Message) -> Message:
    raise DeviceNotFound(EVIL)


#: What a running server answers whose clients and devices are evil.
_DEVICE = {"busid": EVIL, "vid_pid": EVIL, "product": EVIL, "serial": EVIL, "client": EVIL, "imported": 1.0}
_TURN: Message = {"client": EVIL, "begins": 1.0, "until": 2.0}
_STATUS = {"name": EVIL, "pid": EVIL, "addresses": [EVIL], "rules": [EVIL], "follows": True, "changed": True,
           "configuration": f"/not there/{EVIL}", "devices": [_DEVICE],
           "audit": [{"target": EVIL, "lost": 1, "trouble": EVIL}]}  # fmt: skip


@pytest.fixture
def evil_running() -> Iterator[None]:
    handlers: dict[str, Handler] = {
        "status": lambda request: dict(_STATUS),
        "clients": lambda request: {"clients": [_DEVICE]},
        "events": lambda request: {
            "events": [{"time": EVIL, "kind": EVIL, "number": 1, "sentence": EVIL, "client": EVIL, "busid": EVIL}],
            "last": 1,
        },
        "bind": lambda request: dict(_STATUS),
        "access": lambda request: {"mode": EVIL, "access_rules": [EVIL]},
        "change-access": lambda request: {"mode": EVIL, "access_rules": [EVIL], "changed": True, "follows": True},
        "leases": lambda request: {"leases": [{"busid": EVIL, "turns": [_TURN]}]},
        "reserve": lambda request: {"turn": _TURN, "turns": [_TURN]},
        "release": lambda request: {"turns": [_TURN]},
        **dict.fromkeys(("kick", "reset", "power"), _refusing),
    }
    control = ControlSocket(EVIL, handlers, listen=EVIL)
    yield
    control.close()


@pytest.mark.usefixtures("evil_running")
@pytest.mark.parametrize(("command", "arguments", "until"), CASES)
def test_what_commands_print(
    command: str, arguments: list[str], until: str | None, evil: EvilServer, folder: Path
) -> None:
    output, code = run(folder, evil, command, arguments, until)
    check(output)
    assert "Traceback" not in output
    assert code in (range(9) if until is None else (0, 130))
    assert until is None or until in output
    assert not (folder / "owned").exists()


def test_clients_of_the_relay(evil: EvilServer, folder: Path) -> None:
    command = ["usbip-capture", "relay", evil.host, "--listen", "127.0.0.1:0", "-o", "relay.pcapng"]
    with subprocess.Popen(
        command, cwd=folder, env=command_environment(folder), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        output = process.stderr.readline()
        where = output.split()[2]
        for device in DEVICES:
            probed = subprocess.run(
                ["usbip-capture", "probe", where, "--device", device],
                cwd=folder, env=command_environment(folder), capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            check(probed.stdout + probed.stderr)
        process.send_signal(signal.SIGINT)
        output += process.communicate(timeout=30)[1]
    check(output)
    check_capture(folder / "relay.pcapng")


def test_what_is_in_files(evil: EvilServer, folder: Path) -> None:
    for line in ("convert evil.pcap evil-usb.pcapng", "stats evil.pcapng --html page.html", "stats evil-usb.pcapng"):
        check(run(folder, evil, *_split(line))[0])
    for name in ("evil.pcapng", "evil-usb.pcapng"):
        check_capture(folder / name)
    assert acted_upon((folder / "page.html").read_text()) <= {"\t"}


EXTCAP = ("--extcap-interface", "usbip-remote", "--host", "127.0.0.1", "--port")
INTO_FILES = ("--count", "20", "--duration", "1", "--fifo", "extcap.pcapng", "--log-file", "extcap.log")
PLUG_IN = "import sys; from usbip_capture.extcap.main import main; sys.exit(main())"


@pytest.mark.parametrize("device", ["", *DEVICES], ids=ascii)
def test_messages_of_the_plug_in(device: str, evil: EvilServer, folder: Path) -> None:
    chosen = (*EXTCAP, str(evil.port), *(["--device", device] if device else []))
    for arguments in (
        ("--capture", *chosen, *INTO_FILES),
        ("--extcap-config", "--extcap-reload-option", "device", *chosen),
        ("--extcap-interfaces",),
    ):
        command = ["python3", "-c", PLUG_IN, *arguments]
        environment = command_environment(folder)
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=60, check=False)
        check((done.stdout + done.stderr).decode())
        assert b"Traceback" not in done.stderr
    check((folder / "extcap.log").read_text())


def test_servers_that_announce_themselves() -> None:
    server = DiscoveredServer(EVIL, "192.0.2.1", 3240, ("192.0.2.1", EVIL), {EVIL: EVIL})
    for line in lines(server, Paint(None)):
        check(line)


def check_capture(path: Path) -> None:
    """Names, descriptions and comments."""
    texts = []
    for item in read_items(path):
        if isinstance(item, CapturedInterface):
            texts += [item.name, item.description]
        if isinstance(item, CapturedRecord):
            texts += item.comments
    assert texts
    for text in texts:
        check(text)


def _split(line: str) -> tuple[str, list[str]]:
    command, *arguments = line.split()
    return command, arguments
