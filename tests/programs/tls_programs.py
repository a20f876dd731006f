"""openssl and stunnel, as others use them beside USB/IP."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.programs.sshd import free_port
from tests.waiting import wait_until

_STUNNEL = """\
foreground = yes
pid =
debug = info
output = {folder}/stunnel.log
[usbip]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{target}
{options}
"""


def s_client(port: int, *options: str, sent: bytes = b"", timeout: float = 30.0) -> subprocess.CompletedProcess[bytes]:
    """What `openssl s_client` prints of a server to which it sends something, after it has closed the connection."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]
    return subprocess.run(command, input=sent, capture_output=True, timeout=timeout, check=False)


@contextmanager
def stunnel(folder: Path, target: int, options: str) -> Iterator[int]:
    """The port of a stunnel that leads to another one. options: of its service, a line each."""
    program = shutil.which("stunnel4")
    if program is None:
        pytest.skip("stunnel4 is not installed")
    port = free_port()
    folder.mkdir()
    configuration, log = folder / "stunnel.conf", folder / "stunnel.log"
    configuration.write_text(_STUNNEL.format(folder=folder, port=port, target=target, options=options))
    with subprocess.Popen(
        [program, str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until("stunnel listens", lambda: log.exists() and "Configuration successful" in log.read_text())
            assert process.poll() is None, log.read_text()
            yield port
        finally:
            process.terminate()
