"""A kernel's session, joined in its middle by the real extcap: what tshark captures is what the client's usbmon has."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from tests.kernel.lending import TIMEOUT, Lending
from tests.kernel.rig import PythonGuest
from tests.kernel.rig.usbmon import recorded
from tests.oracles.pcapng_reader import CapturedRecord, read_capture
from tests.oracles.usbmon_comparison import compare, read_events
from tests.programs.extcap_launcher import wireshark_environment
from tests.waiting import wait_until
from usbip_capture.capture.channel import IN_FLIGHT
from usbip_capture.records.usbmon import UsbmonRecord
from usbip_capture.sessions.session_capture import DESCRIPTORS

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.wireshark,
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in ("tshark", "editcap")), reason="tshark is not installed"
    ),
]

T = TypeVar("T")

WEB = 3280  # in the guest
LINK = re.compile(r"(http://\S+)/\?token=(\S+)")
#: What the dashboard is made of; all of it is Python.
PACKAGES = ("anyio", "click", "h11", "starlette", "typing_extensions", "uvicorn", "wsproto")
#: Bytes that a viewer has when it sees commands of the disk, not only what was learnt before.
ENOUGH = 300_000


@pytest.fixture(scope="module")
def watched(lender: PythonGuest) -> Iterator[tuple[Lending, str, str]]:
    """Our server with its dashboard, where that is on this machine, and a token for it."""
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    files = [Path(spec.origin) for spec in specs if spec is not None and spec.origin]
    if len(files) < len(PACKAGES):
        pytest.skip("the dashboard's packages are not installed")
    lender.add(*(file.parent if file.name == "__init__.py" else file for file in files))
    with closing(Lending(lender, "--web", f"0.0.0.0:{WEB}")) as lending:
        found = LINK.search(lending.program.wait_printed("?token=", 120))
        assert found is not None
        place, token = f"http://127.0.0.1:{lender.forward(WEB)}", found[2]
        warm_up(place, token)
        yield lending, place, token


def warm_up(place: str, token: str) -> None:
    """A first stream: what is imported for it takes longer in emulation than a viewer waits."""
    stream = f"{place}/api/v1/captures/stream?events=1"
    headers = {"authorization": f"Bearer {token}"}
    with httpx.stream("GET", stream, headers=headers, timeout=300, trust_env=False) as answer:
        assert next(answer.iter_raw())


@contextmanager
def viewing(place: str, token: str, home: Path) -> Iterator[Path]:
    """tshark, which joins the server there; its file, whole once the block has ended."""
    path = home / "joined.pcapng"
    home.mkdir()
    environment = wireshark_environment(home) | {"USBIP_CAPTURE_TOKEN": token}
    command = ["tshark", "-q", "-i", "usbip-remote", "-w", str(path)]
    for name, value in {"host": place, "mode": "server"}.items():
        command += ["-o", f"extcap.usbip_remote.{name}:{value}"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as run:
        try:
            wait_until(
                "it sees the disk",
                lambda: run.poll() is not None or (path.exists() and path.stat().st_size > ENOUGH),
                120,
            )
            assert run.poll() is None, run.communicate()
            yield path
            run.terminate()
            assert run.wait(60) == 0
        finally:
            run.kill()


def test_viewers_who_join_see_what_the_clients_usbmon_sees(
    watched: tuple[Lending, str, str], borrower: PythonGuest, disk: Path, tmp_path: Path
) -> None:
    lending, place, token = watched
    busid = lending.lend("storage", "ehci", file=disk, driver="usb-storage")
    borrower.run("modprobe vhci-hcd")
    reference = tmp_path / "client.pcap"
    with recorded(borrower, borrower.bus("vhci"), reference):
        local = borrower.attach(lending.port, busid)
        borrower.run("until head -c 512 /dev/sda >/dev/null 2>&1; do usleep 20000; done", timeout=TIMEOUT)
        with reading(borrower), ExitStack() as viewers:
            paths = [viewers.enter_context(viewing(place, token, tmp_path / name)) for name in ("first", "second")]
        borrower.detach(local)
        lending.wait_available(busid)
    first, second = paths
    for path in paths:
        check_against_client(path, reference, path.parent)
    place_of(shared_records(second), shared_records(first))


@contextmanager
def reading(guest: PythonGuest) -> Iterator[None]:
    """The guest reads the disk from the beginning to the end, again and again."""
    guest.run(
        "while [ ! -e /tmp/enough ]; do echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/sda of=/dev/null bs=64k; done"
        " >/dev/null 2>&1 </dev/null & echo $! >/tmp/reading"
    )
    yield
    guest.run("touch /tmp/enough; while [ -e /proc/$(cat /tmp/reading) ]; do usleep 20000; done; rm /tmp/enough")


def joined_records(path: Path) -> list[tuple[int, CapturedRecord]]:
    """Each event of USB from the moment on when the viewer joined, with its frame's number."""
    numbered = [(number, record) for number, record in enumerate(read_capture(path), 1) if record.usb is not None]
    return [(number, record) for number, record in numbered if DESCRIPTORS not in record.comments]


def event_key(record: UsbmonRecord | None) -> tuple[object, ...]:
    """What is equal at the server and at its client, and is that of one event only: each command has its number."""
    assert record is not None
    return record.type, record.xfer_type, record.epnum, record.status, record.length, record.setup, record.data


def place_of(part: list[T], whole: list[T]) -> int:
    """Where `part` lies in `whole`, without a gap."""
    places = [at for at in range(len(whole)) if whole[at : at + len(part)] == part]
    assert len(places) == 1
    return places[0]


def check_against_client(path: Path, reference: Path, folder: Path) -> None:
    """Each event of the client from that moment on, once and in its order; and each field of it."""
    joined = joined_records(path)
    assert len(joined) > 12
    client = [event_key(event.record) for event in read_events(reference)]
    at = place_of([event_key(record.usb) for _, record in joined], client)
    ours = frames(path, joined[0][0], joined[-1][0], folder / "ours.pcapng")
    report = compare(ours, frames(reference, at + 1, at + len(joined), folder / "theirs.pcap"))
    assert report.differences == []
    assert report.urbs >= len(joined) // 2


def frames(path: Path, first: int, last: int, target: Path) -> Path:
    """A file of some of its packets."""
    subprocess.run(["editcap", "-r", str(path), str(target), f"{first}-{last}"], check=True, capture_output=True)
    return target


def shared_records(path: Path) -> list[tuple[object, ...]]:
    """Time, number and content of all that was not shown to this viewer alone."""
    return [
        (record.timestamp_ns, record.usb.id, *event_key(record.usb))
        for _, record in joined_records(path)
        if IN_FLIGHT not in record.comments and record.usb is not None
    ]
