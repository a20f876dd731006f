"""`usbip-extcap --doctor`: everything between Wireshark and a server that may be wrong, each with its remedy.

Whatever is broken becomes a finding: each part is looked at with a time limit, and a check that fails itself is
reported as one.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import platform
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec

from usbip_capture import __version__
from usbip_capture.errors import UsbipError
from usbip_capture.installation import lab_check, launcher_check
from usbip_capture.installation.health import FAILURE, OK, WARNING, Finding, ask, first_line
from usbip_capture.installation.wiresharks import Installation, installations, sandboxed
from usbip_capture.net.address import DEFAULT_PORT, SSH
from usbip_capture.net.ssh import never_ask
from usbip_capture.options.table import INTERFACE
from usbip_capture.servers.address import LOCAL, ServerAddress
from usbip_capture.servers.configuration import (
    CONFIGURATION,
    ENVIRONMENT,
    SERVERS_VARIABLE,
    configuration_path,
    configured,
)
from usbip_capture.servers.known import (
    CACHE_FILE,
    known_servers,
)
from usbip_capture.system import shown
from usbip_capture.system.folders import cache_folder

PACKAGES = ("pyusb", "python-pcapng", "zeroconf", "plotille")
#: Where a server is known from, as a person finds it.
_WHERE = {
    ENVIRONMENT: SERVERS_VARIABLE,
    CONFIGURATION: configuration_path(),
    "used": f"an earlier capture, in {os.path.join(cache_folder(), CACHE_FILE)}",
    "mdns": "its own announcement on the network",
}
#: Seconds for a server's connection, and for its answer.
_SERVER_LIMIT = 2.0
#: Looking up a name has no time limit of its own.
_ALL_SERVERS_LIMIT = 6.0

P = ParamSpec("P")


def run(host: str = "", port: int = DEFAULT_PORT) -> int:
    """Print all findings as they come. Returns the exit code: 1 if there is a failure.

    host, port: a server that is meant in particular, which is a failure if it does not answer; none if `host` is empty.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    marks = []
    try:
        for finding in findings(host, port):
            print(finding.lines(), flush=True)
            marks.append(finding.mark)
        print(_verdict(marks.count(FAILURE), marks.count(WARNING)), flush=True)
    except BrokenPipeError:  # who reads has seen enough; Python must not write more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except KeyboardInterrupt:
        return 130
    return 1 if FAILURE in marks else 0


def findings(host: str = "", port: int = DEFAULT_PORT) -> Iterator[Finding]:
    """Every finding, from the inside out: Python, Wireshark, the launcher, what Wireshark reports of it, servers."""
    yield from _guarded(_ourselves)
    yield from _guarded(_libusb)
    found: list[Installation] = []

    def look() -> Iterator[Finding]:
        found.extend(installations())
        yield from _wiresharks(found)

    yield from _guarded(look)
    yield from _guarded(_sandboxes)
    for group in _by_folder(found):
        well = True
        folders = list(dict.fromkeys(folder for each in group for folder in each.extcap_folders))
        for finding in _guarded(launcher_check.check, folders, " and ".join(dict.fromkeys(map(str, group)))):
            well = well and finding.mark != FAILURE
            yield finding
        for each in group if well else []:
            yield from _guarded(_listed, each)
    yield from _guarded(_servers, host, port)
    yield from _guarded(lab_check.check)
    if host:
        yield from _guarded(_one_server, host, port)


def _guarded(check: Callable[P, Iterator[Finding]], *args: P.args, **kwargs: P.kwargs) -> Iterator[Finding]:
    try:
        yield from check(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  the other checks go on
        text = f"a check of the doctor failed itself ({type(error).__name__}: {error})"
        yield Finding(FAILURE, text, "please report this sentence as a bug of usbip-capture")


def _verdict(failures: int, warnings: int) -> str:
    def count(number: int, word: str) -> str:
        return f"{number} {word}{'' if number == 1 else 's'}"

    if not failures and not warnings:
        return "\nAll is well."
    return f"\n{count(failures, 'failure')}, {count(warnings, 'warning')}."


def _ourselves() -> Iterator[Finding]:
    yield Finding(OK, f"usbip-capture {__version__} on Python {platform.python_version()}, {sys.executable}")
    for package in PACKAGES:
        try:
            yield Finding(OK, f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            remedy = f"run install.py again, or '{_installing(package)}'"
            yield Finding(FAILURE, f"{package} is not installed", remedy)
    try:
        yield Finding(OK, f"pyserial {importlib.metadata.version('pyserial')}")
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            WARNING, "pyserial is not installed: there are no serial ports", f"run '{_installing('pyserial')}'"
        )


def _libusb() -> Iterator[Finding]:
    """Only for the devices of this machine: it may well be missing."""
    from usbip_capture.devices.libusb.binding import LibusbMissing, load

    try:
        load()
    except LibusbMissing as error:
        yield Finding(OK, f"note: {error}")
    else:
        yield Finding(OK, "libusb is there: `usbip-capture local` lists the devices of this machine")


def _installing(package: str) -> str:
    """The command that installs a package where we are: pipx keeps environments that pip does not find."""
    if "pipx" in Path(sys.prefix).parts:
        return f"pipx inject usbip-capture {package}"
    return f"{sys.executable} -m pip install {package}"


def _wiresharks(found: list[Installation]) -> Iterator[Finding]:
    if not found:
        remedy = "install Wireshark: the package wireshark or tshark of your distribution, or from wireshark.org"
        yield Finding(FAILURE, "no Wireshark is in PATH or in the usual places", remedy)
    for each in found:
        names = ", ".join(path for name, path in each.programs.items() if name != "dumpcap")
        if each.problem:
            yield Finding(FAILURE, f"{each.asked} {each.problem}", f"run '{each.asked} --version'; install it anew")
            continue
        yield Finding(OK, f"{each}: {names}")
        folders = f"{each.personal} (yours)" + (f", {each.shared} (everyone's)" if each.shared else "")
        yield Finding(OK, f"it looks for extcaps in {folders}")
        yield from _dumpcap(each)
    if os.environ.get("WIRESHARK_EXTCAP_DIR"):
        folder = os.environ["WIRESHARK_EXTCAP_DIR"]
        yield Finding(OK, f"note: WIRESHARK_EXTCAP_DIR is set, {folder} is read instead of everyone's extcap folder")


def _dumpcap(wireshark: Installation) -> Iterator[Finding]:
    path = wireshark.programs.get("dumpcap")
    if path is None:
        remedy = "install it: it is in the package wireshark-common (Debian) or wireshark-cli (Fedora)"
        yield Finding(FAILURE, f"{wireshark} has no dumpcap, without which it captures nothing", remedy)
        return
    answer = ask(path, "--version")
    if answer.denied:
        remedy = "run 'sudo usermod -aG wireshark $USER' and log in anew"
        if shutil.which("dpkg-reconfigure", path="/usr/sbin:/sbin"):
            remedy = f"run 'sudo dpkg-reconfigure wireshark-common', answer yes, then {remedy[4:]}"
        yield Finding(FAILURE, f"you may not run {path}, which reads what our interface captures", remedy)
    elif answer.problem:
        yield Finding(FAILURE, f"{path} {answer.problem}", f"run '{path} --version'; install it anew")
    else:
        yield Finding(OK, f"you may run {path}; our interface needs no more rights than that")


def _sandboxes() -> Iterator[Finding]:
    for kind in sandboxed():
        remedy = "install your distribution's package as well, and start that one"
        yield Finding(WARNING, f"a Wireshark from {kind} is here: it cannot capture with extcaps", remedy)


def _by_folder(found: list[Installation]) -> list[list[Installation]]:
    """Those that read the same personal folder together, for their launcher is looked at once."""
    groups: dict[Path, list[Installation]] = {}
    for each in found:
        groups.setdefault(each.personal, []).append(each)
    return list(groups.values())


def _listed(wireshark: Installation) -> Iterator[Finding]:
    tshark = wireshark.programs.get("tshark")
    if tshark is None or wireshark.problem:
        return
    answer = ask(tshark, "-D")
    if INTERFACE in answer.out:
        yield Finding(OK, f"{tshark} lists {INTERFACE}, in {answer.seconds * 1000:.0f} ms for all interfaces")
    elif answer.problem:
        folders = " and ".join(map(str, wireshark.extcap_folders))
        remedy = f"run '{tshark} -D'; if it hangs, another program in {folders} does: move it"
        yield Finding(FAILURE, f"'{tshark} -D' {answer.problem}", remedy)
    else:
        line = first_line(answer.error)
        text = f"{tshark} does not list {INTERFACE}" + (f", but reports: {line}" if line else "")
        yield Finding(FAILURE, text, f"see what '{tshark} -D --log-domains=Extcap --log-level=debug' reports")


def _servers(named: str = "", named_port: int = DEFAULT_PORT) -> Iterator[Finding]:
    """Ask every known server at once, but not the one that is named: it is asked in particular."""
    for entry in configured():
        if entry.problem:
            _, _, remedy = entry.problem.partition(": ")
            text = entry.complaint(_WHERE[entry.source]).removesuffix(f": {remedy}")
            yield Finding(WARNING, text, remedy or "look at it with 'usbip-capture config'")
    found: dict[ServerAddress, Finding] = {}
    threads = []
    particular = None
    with contextlib.suppress(UsbipError):  # what is wrong with it is reported where it is asked
        particular = ServerAddress.parse(named, named_port, _SERVER_LIMIT) if named else None
    for known in known_servers():
        if known.host.startswith(f"{SSH}://"):
            never_ask()
        server = ServerAddress.at(known.host, known.port, _SERVER_LIMIT)
        if server == particular:
            continue
        forget = f", or forget it: it is known from {_WHERE.get(known.source, 'the cache')}"
        # A daemon, because a lookup of a name may take for ever.
        thread = threading.Thread(
            target=lambda s=server, f=forget: found.update({s: _server(s, WARNING, f)}), daemon=True
        )
        thread.start()
        threads.append((server, thread))
    deadline = time.monotonic() + _ALL_SERVERS_LIMIT
    for server, thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        late = Finding(WARNING, f"server {server} does not answer in time", "look at the network and the name server")
        yield found.get(server, late)


def _one_server(host: str, port: int) -> Iterator[Finding]:
    """The server that is meant in particular."""
    try:
        server = ServerAddress.parse(host, port, _SERVER_LIMIT)
    except UsbipError as error:
        yield Finding(FAILURE, f"server {shown.one_line(host)}: {error}", "name it as --host HOST, and --port PORT")
        return
    found: list[Finding] = []
    # A daemon, because a lookup of a name may take for ever.
    thread = threading.Thread(target=lambda: found.append(_server(server, FAILURE, "")), daemon=True)
    thread.start()
    thread.join(_ALL_SERVERS_LIMIT)
    late = Finding(FAILURE, f"server {server} does not answer in time", "look at the network and the name server")
    yield found[0] if found else late


def _server(server: ServerAddress, mark: str, forget: str) -> Finding:
    try:
        count = len(server.devices())
    except (UsbipError, OSError) as error:
        return Finding(mark, f"server {server}: {shown.one_line(str(error))}", f"start a USB/IP server there{forget}")
    return Finding(
        OK, f"{'' if server.host == LOCAL else 'server '}{server.offers} {count} device{'' if count == 1 else 's'}"
    )
