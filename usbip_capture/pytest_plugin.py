"""For pytest: the fixture `usb_recording`, a device out of a capture instead of the real one.

    def test_identity(usb_recording):
        backend = usb_recording("identity").backend
        assert usb.core.find(backend=backend).product == "Demo device"

replays `recordings/identity.pcapng` beside the test; `pytest --usb-record=HOST` makes it from the real device.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from usbip_capture.pyusb_backend import UsbipBackend
    from usbip_capture.replayed.device import ReplayedDevice

_FOLDER = "recordings"
_MOST_SHOWN = 20
#: Bytes of a secret: what is shorter would be found in headers, too.
_SHORTEST = 4
#: What captures for labgrid, if a test has imported it.
_LABGRID = "usbip_capture.labgrid.captures"
_used = pytest.StashKey["list[UsbRecording]"]()
_passed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the command line and of the configuration file."""
    group = parser.getgroup("usb recordings")
    group.addoption(
        "--usb-record", metavar="HOST", help="record from the devices of this USB/IP server what tests replay otherwise"
    )
    parser.addini("usb_recordings", "folder of the recordings (default: recordings, beside each test)", default="")


class UsbRecording:
    """What a test uses: a recording that is replayed, or a real device that is recorded.

    path: of the recording. server: where the device is, as every command takes it. Both `backend` and `serial` are
    closed at the end.
    """

    def __init__(self, path: Path, device: str, mask: Sequence[bytes]) -> None:
        self.path = path
        self.server = ""
        self._device = device
        self._mask = mask
        self._backend: UsbipBackend | None = None
        self._ports: list[Any] = []

    @property
    def backend(self) -> UsbipBackend:
        """For PyUSB: `usb.core.find(backend=...)`."""
        from usbip_capture.pyusb_backend import get_backend

        if self._backend is None:
            self._backend = get_backend(self.server, device=self._device, **self._capture())
        return self._backend

    def serial(self, **settings: Any) -> Any:
        """A port of pyserial, opened with these settings, such as `baudrate=115200, timeout=1`."""
        import serial

        port = serial.serial_for_url(self.url, **settings)
        self._ports.append(port)
        return port

    @property
    def url(self) -> str:
        """The same as a URL of pyserial, for who opens it by itself."""
        from urllib.parse import quote

        from usbip_capture.serial_port.url import url_of
        from usbip_capture.servers.address import ServerAddress

        where, parameters = url_of(ServerAddress.parse(self.server))
        parameters += [f"{name}={quote(str(value), safe='')}" for name, value in self._capture().items()]
        return f"usbip://{where}/{self._device}" + (f"?{'&'.join(parameters)}" if parameters else "")

    @property
    def divergences(self) -> list[str]:
        """What was asked and is not in the recording, a sentence each."""
        return []

    @property
    def unused(self) -> list[str]:
        """What the recording has and was not asked, a sentence each."""
        return []

    def close(self) -> None:
        """Close what was opened."""
        for port in self._ports:
            port.close()
        if self._backend is not None:
            self._backend.close()

    def _capture(self) -> dict[str, Any]:
        return {}


class _Replayed(UsbRecording):
    def __init__(self, path: Path, device: str, mask: Sequence[bytes], match: str, speed: float) -> None:
        from usbip_capture.replayed.recording import chosen, read_recordings
        from usbip_capture.replayed.server import ReplayServer

        super().__init__(path, device, mask)
        if not path.exists():
            raise pytest.UsageError(f"there is no recording {path}: make it with pytest --usb-record=HOST")
        recordings = read_recordings(path)
        if device:
            recordings = [chosen(recordings, device)]
        self._devices: list[ReplayedDevice] = []
        self._serving = ReplayServer(recordings, match=match, speed=speed, mask=mask, on_open=self._devices.append)
        host, port = self._serving.listen("127.0.0.1", 0)
        self.server = f"{host}:{port}"

    @property
    def divergences(self) -> list[str]:
        return [str(divergence) for device in self._devices for divergence in device.outcome.divergences]

    @property
    def unused(self) -> list[str]:
        """Of the session that has asked most."""
        found = [device.unused for device in self._devices]
        return [f"packet {one.number}: {one}" for one in min(found, key=len, default=[])]

    def close(self) -> None:
        super().close()
        self._serving.close()


class _Recorded(UsbRecording):
    def __init__(self, path: Path, device: str, mask: Sequence[bytes], host: str) -> None:
        super().__init__(path, device, mask)
        self.server = host
        self._beside = path.with_suffix(".part.pcapng")
        self._taken = False
        path.parent.mkdir(parents=True, exist_ok=True)

    def _capture(self) -> dict[str, Any]:
        if self._taken:
            raise pytest.UsageError(f"{self.path.name} is recorded by one backend or one port: name a second recording")
        self._taken = True
        return {"pcap": self._beside}

    def keep(self) -> None:
        """The recording is what was recorded, its secrets masked; if nothing was, it stays as it is."""
        if not self._beside.exists():
            return
        raw = self._beside.read_bytes()
        for secret in self._mask:
            raw = raw.replace(secret, b"*" * len(secret))
        self._beside.write_bytes(raw)
        os.replace(self._beside, self.path)

    def drop(self) -> None:
        """What was recorded is not kept."""
        self._beside.unlink(missing_ok=True)


@pytest.fixture
def usb_recording(request: pytest.FixtureRequest) -> Iterator[Callable[..., UsbRecording]]:
    """`usb_recording(name, device="", match="loose", speed=0, mask=(), unused="ignore", divergence="error")`.

    device: which one of the capture, or of the server, by busid or VID:PID. match: `loose` or `strict`. speed: 1 as
    recorded, 0 at once. mask: secrets, each of at least 4 bytes within one transfer: never written into a recording,
    and not compared. unused, divergence: `error` fails a test that did not ask for all that is recorded, or asked for
    something else. What is recorded is kept if the test passes.
    """
    opened: list[tuple[UsbRecording, str, str]] = []
    item = request.node
    item.stash[_used] = []

    def open_recording(
        name: str,
        device: str = "",
        *,
        match: str = "loose",
        speed: float = 0.0,
        mask: Sequence[bytes] = (),
        unused: str = "ignore",
        divergence: str = "error",
    ) -> UsbRecording:
        if any(len(secret) < _SHORTEST for secret in mask):
            raise pytest.UsageError(f"mask is for secrets of at least {_SHORTEST} bytes: shorter ones are anywhere")
        path = _folder(request) / f"{name}.pcapng"
        host = request.config.getoption("--usb-record")
        made: UsbRecording = (
            _Recorded(path, device, mask, host) if host else _Replayed(path, device, mask, match, speed)
        )
        opened.append((made, unused, divergence))
        item.stash[_used].append(made)
        return made

    yield open_recording
    _finish(opened, passed=item.stash.get(_passed, False))


def _finish(opened: Sequence[tuple[UsbRecording, str, str]], *, passed: bool) -> None:
    """Close the recordings of a test, and fail it where one differs, if it has not failed by itself."""
    problems: list[str] = []
    for made, unused, divergence in opened:
        made.close()
        if isinstance(made, _Recorded):
            made.keep() if passed else made.drop()
            continue
        if divergence == "error":
            problems += made.divergences
        if unused == "error":
            problems += [f"never asked: {one}" for one in made.unused]
    if problems and passed:
        pytest.fail("\n".join(["the recording and the test differ:", *_shown(problems)]), pytrace=False)


def pytest_runtest_logstart(nodeid: str) -> None:
    """A test begins: drivers of ours for labgrid, where there are any, capture into its own file."""
    captures = sys.modules.get(_LABGRID)
    if captures is not None:
        captures.test_begins(nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A test that fails shows where it and its recordings differ."""
    report: pytest.TestReport = yield  # type: ignore[assignment]  # what the other hooks return
    captures = sys.modules.get(_LABGRID)
    if captures is not None and report.failed:
        captures.mark(f"{report.when} of test {item.nodeid} failed")
    if report.when == "call":
        item.stash[_passed] = report.passed
    if report.when == "call" and report.failed:
        for made in item.stash.get(_used, []):
            if made.divergences:
                text = "\n".join(_shown(made.divergences))
                report.sections.append((f"asked, and not in {made.path.name}", text))
    return report  # type: ignore[return-value]


def _folder(request: pytest.FixtureRequest) -> Path:
    configured = str(request.config.getini("usb_recordings"))
    return request.config.rootpath / configured if configured else request.path.parent / _FOLDER


def _shown(lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - _MOST_SHOWN} more"] if len(lines) > _MOST_SHOWN else []
    return [*lines[:_MOST_SHOWN], *more]
