"""A server on loopback of another machine or a script there, by the system's `ssh`, as the user has set it up.

Ref: OpenSSH, ssh(1) and ssh_config(5)
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence

from usbip_capture.errors import LocalProtocolError, ServerUnreachable
from usbip_capture.net.address import SSH, format_address
from usbip_capture.net.child import ChildTransport

PROGRAM = "ssh"
_nobody_is_asked = False
#: Seconds for ssh to reach the other machine, at least; then to log in, and with a person who is asked something.
_CONNECTING, _LOGGING_IN, _ASKING = 5.0, 5.0, 60.0
#: Where the USB/IP server listens over there.
_LOOPBACK = "127.0.0.1"
#: What ssh prints below the reason.
_NOT_FORWARDED = "stdio forwarding failed"
_OPTIONS = ("ServerAliveInterval=10", "ServerAliveCountMax=3")
#: With a command of ours: neither what `~/.ssh/config` runs or forwards at each login, nor a terminal.
_COMMAND_OPTIONS = ("RemoteCommand=none", "ClearAllForwardings=yes", "RequestTTY=no")
#: It reads a script, whatever the user's login shell is.
_SHELL = "sh -s"
#: Exit status of ssh itself where it has failed; others are those of the command.
FAILED = 255


def open_ssh(
    host: str, port: int, timeout: float, *, user: str = "", ssh_port: int = 0, asks: bool | None = None
) -> ChildTransport:
    """A connection to port `port` on loopback of `host`. Returns before ssh has logged in: failures come with use.

    user, ssh_port: nothing and 0 as ssh is configured. timeout: seconds for ssh to connect. asks: ssh may ask for a
    password or about a host's key; None: if there is a terminal, and `never_ask` was not called. Raises
    ServerUnreachable, LocalProtocolError.
    """
    target = target_of(host, user, ssh_port)

    def explain(lines: list[str], status: int | None) -> str:
        return _sentence(target, port, lines, status)

    where = format_address(_place(host, user, ssh_port), port)
    words = ("-W", f"{_LOOPBACK}:{port}", "--", host)
    return _open(words, where, timeout, explain, host=host, user=user, ssh_port=ssh_port, asks=asks)


def open_shell(
    host: str,
    timeout: float,
    explain: Callable[[list[str], int | None], str],
    *,
    user: str = "",
    ssh_port: int = 0,
    asks: bool | None = None,
) -> ChildTransport:
    """A POSIX shell on `host`, which reads what is sent as its script, and what it prints. Otherwise as `open_ssh`.

    explain: as `ChildTransport` has it, for a status that is neither 0 nor FAILED: the script's own.
    """
    target = target_of(host, user, ssh_port)

    def explain_all(lines: list[str], status: int | None) -> str:
        if status is not None and 0 < status != FAILED:
            return explain(lines, status)
        return _shell_sentence(target, lines, status)

    words = (*(word for option in _COMMAND_OPTIONS for word in ("-o", option)), "--", host, _SHELL)
    where = _place(host, user, ssh_port)
    return _open(words, where, timeout, explain_all, host=host, user=user, ssh_port=ssh_port, asks=asks)


def _open(
    words: Sequence[str],
    where: str,
    timeout: float,
    explain: Callable[[list[str], int | None], str],
    *,
    host: str,
    user: str,
    ssh_port: int,
    asks: bool | None,
) -> ChildTransport:
    """ssh with `words` behind its options. Raises ServerUnreachable, LocalProtocolError."""
    for name in (host, user):
        if name.startswith("-") or not name.isprintable() or " " in name:
            raise LocalProtocolError(f"{name!r} cannot be given to ssh: neither a blank nor a - in front may be in it")
    if os.name != "posix":
        raise ServerUnreachable("ssh:// needs a POSIX system: run ssh -N -L 3240:127.0.0.1:3240 HOST, use 127.0.0.1")
    asks = _has_terminal() and not _nobody_is_asked if asks is None else asks
    connecting = max(_CONNECTING, timeout)
    opening = connecting + (_ASKING if asks else _LOGGING_IN)
    try:
        return ChildTransport(_command(words, user, ssh_port, connecting, asks), where, opening, explain, asks=asks)
    except FileNotFoundError as error:
        raise ServerUnreachable(
            f"there is no program ssh on this machine, which {where} needs: install OpenSSH's client"
        ) from error
    except OSError as error:
        raise ServerUnreachable(f"ssh cannot be started for {where}: {error.strerror or error}") from error


def never_ask() -> None:
    """From now on nobody is asked anything: for programs that connect to servers that nobody has named."""
    global _nobody_is_asked  # noqa: PLW0603  one for the process
    _nobody_is_asked = True


def _command(words: Sequence[str], user: str, ssh_port: int, connecting: float, asks: bool) -> list[str]:
    options = [*_OPTIONS, f"ConnectTimeout={math.ceil(connecting)}", *(() if asks else ("BatchMode=yes",))]
    return [
        PROGRAM, *(word for option in options for word in ("-o", option)),
        *(("-l", user) if user else ()), *(("-p", str(ssh_port)) if ssh_port else ()), *words,
    ]  # fmt: skip


def _has_terminal() -> bool:
    """Whether a person is there, who sees what ssh asks: not where Wireshark runs us."""
    try:
        return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
    except ValueError:  # closed
        return False


def _place(host: str, user: str, ssh_port: int) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    return f"{SSH}://{f'{user}@' if user else ''}{bracketed}{f':{ssh_port}' if ssh_port else ''}"


def target_of(host: str, user: str, ssh_port: int) -> str:
    """As it is typed after `ssh`."""
    return f"{f'-p {ssh_port} ' if ssh_port else ''}{f'{user}@' if user else ''}{host}"


def _sentence(target: str, port: int, lines: list[str], status: int | None) -> str:
    """Why ssh has failed, by its own last line, and what to try."""
    if len(lines) > 1 and lines[-1] == _NOT_FORWARDED:
        del lines[-1]
    last = lines[-1].rstrip(".") if lines else ""
    if status is None:
        reason = "has not brought an answer yet" + (f" ({last})" if last else "")
        return f"ssh {target} {reason}: try it in a terminal; does a USB/IP server listen on {_LOOPBACK}:{port} there?"
    last = last or _end_of(status)
    return f"ssh {target} failed: {last}: {_advice(target, port, last)}"


def _shell_sentence(target: str, lines: list[str], status: int | None) -> str:
    """The same where it was to run a shell: `status` is that of ssh itself, or None."""
    last = lines[-1].rstrip(".") if lines else ""
    if status is None:
        reason = "has not brought an answer yet" + (f" ({last})" if last else "")
        return f"ssh {target} {reason}: see whether `ssh {target} sh -s` works in a terminal"
    last = last or _end_of(status)
    return f"ssh {target} failed: {last}: {_login_advice(target, last)}"


def _end_of(status: int) -> str:
    return f"it was ended by signal {-status}" if status < 0 else f"it ended with status {status}"


def _advice(target: str, port: int, last: str) -> str:
    if "open failed" in last and "prohibited" in last:
        return "the sshd of that machine must allow it: AllowTcpForwarding, or permitopen= of your key"
    if "open failed" in last:
        return f"does a USB/IP server listen on {_LOOPBACK} port {port} of that machine?"
    return _login_advice(target, last)


def _login_advice(target: str, last: str) -> str:
    if "Host key verification failed" in last:
        return f"log in once with `ssh {target}` in a terminal, and see whether that is the machine's key"
    if "Permission denied" in last:
        return f"give your key to that machine (ssh-copy-id {target}), or load it into your agent (ssh-add)"
    return f"see whether `ssh {target}` works in a terminal"
