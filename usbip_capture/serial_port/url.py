"""`usbip://` URLs: which serial port of which device of which server, and how to use it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from usbip_capture.capture.span import check_offer
from usbip_capture.errors import LocalProtocolError
from usbip_capture.net.address import SSH, TLS, parse_address, usual_port
from usbip_capture.servers.address import Selector, ServerAddress
from usbip_capture.servers.patience import connect_timeout
from usbip_capture.servers.recording_host import REPLAY
from usbip_capture.syslog import LOG_PORT

SCHEME = "usbip"
LOG_LEVELS = ("debug", "info", "warning", "error")
_PARAMETERS = (
    "serial", "interface", "instance", "pcap", "syslog", "reconnect", "connect_timeout", "logging", "via", "ssh_port",
    "offer", "hindsight",
)  # fmt: skip
_FORM = "write usbip://HOST[:PORT]/BUSID or usbip://HOST[:PORT]/VID:PID"
_CAPTURES = (".pcapng", ".pcap", ".cap", ".gz")
_MAX_BUSID = 31  # bytes. Ref: Linux Documentation/usb/usbip_protocol.rst, OP_REQ_IMPORT
_ON, _OFF = ("1", "on", "true", "yes"), ("0", "off", "false", "no")
_MAX_SECONDS = 86_400.0
_CONNECT_TIMEOUT = 5.0


@dataclass(slots=True, frozen=True)
class PortUrl:
    """The parts of a URL.

    serial: the device's serial number. instance: which of several devices that fit, from 0 in the order of their
    busids. interface: bInterfaceNumber, of a device with several ports; None is its first one that is free.
    pcap: the file to capture into. syslog: the port of the device's log, 0 without. reconnect: seconds to wait for a
    device that is lost; 0 leaves it lost. logging: one of LOG_LEVELS, or nothing. offer: what the program does with the
    device can be joined by others. hindsight: what is kept for them, such as 30s,16MiB.
    """

    server: ServerAddress
    selector: Selector
    serial: str = ""
    interface: int | None = None
    instance: int | None = None
    pcap: str = ""
    syslog: int = 0
    reconnect: float = 0.0
    logging: str = ""
    offer: bool = False
    hindsight: str = ""

    def __post_init__(self) -> None:
        check_offer(self.offer, self.hindsight)
        if self.selector.serial:  # as `serial=TEXT` in the place of a busid
            object.__setattr__(self, "serial", self.serial or self.selector.serial)
            object.__setattr__(self, "selector", replace(self.selector, serial=""))

    @classmethod
    def parse(cls, text: str) -> PortUrl:
        """`usbip://host[:port]/busid` or `/VID:PID`, with parameters. Raises LocalProtocolError, naming the part."""
        try:
            parts = urlsplit(text)
        except ValueError as error:
            raise LocalProtocolError(f"{text!r} is not a URL ({error}): {_FORM}") from error
        if parts.scheme != SCHEME:
            raise LocalProtocolError(f"{text!r} does not begin with usbip://: {_FORM}")
        if not parts.netloc:
            raise LocalProtocolError(f"{text!r} names no server: {_FORM}")
        if parts.fragment:
            raise LocalProtocolError(f"{text!r} ends with #{parts.fragment}, which means nothing: write %23 for a #")
        given = _parameters(parts.query)
        netloc, path = _split_replay(parts.netloc, parts.path)
        if "@" in netloc and given.get("via") != SSH:
            raise LocalProtocolError(f"{text!r} has a user or password, which USB/IP does not know: {_FORM}")
        selector = _selector(unquote(path), text)
        if selector.busid and "instance" in given:
            raise LocalProtocolError(f"{selector.busid} in {text!r} means one device only: leave instance= out")
        return cls(
            _server(unquote(netloc), given),
            selector,
            _filled("serial", given),
            _number("interface", given, 255),
            _number("instance", given, 255),
            _filled("pcap", given),
            _syslog(given),
            _seconds("reconnect", given, 0.0),
            _level(given),
            _offer(given),
            _filled("hindsight", given),
        )

    @property
    def device(self) -> str:
        """Which device, for a sentence."""
        serial = f" with serial number {self.serial}" if self.serial else ""
        return f"device{f' {self.selector}' if str(self.selector) else ''}{serial}"


def url_of(server: ServerAddress) -> tuple[str, list[str]]:
    """`server` as the host of a URL, and the parameters by which it is reached."""
    if server.is_recording:
        return quote(server.host, safe=":"), []
    host, port = f"[{server.host}]" if ":" in server.host else server.host, server.port
    user = f"{quote(server.user, safe='')}@" if server.user else ""
    where = f"{user}{quote(host, safe=':[]')}{'' if port == usual_port(server.place[0]) else f':{port}'}"
    way = [f"via={server.scheme}"] if server.scheme else []
    return where, way + ([f"ssh_port={server.ssh_port}"] if server.ssh_port else [])


def _split_replay(netloc: str, path: str) -> tuple[str, str]:
    """A recording may be in a folder: what follows the last slash is the device, unless that is the file's own name."""
    if not unquote(netloc).lower().startswith(REPLAY):
        return netloc, path
    folder, slash, last = path.rpartition("/")
    if not slash or unquote(last).lower().endswith(_CAPTURES):
        return netloc + path, ""
    return netloc + folder, slash + last


def _server(where: str, given: dict[str, str]) -> ServerAddress:
    """The port is that of the USB/IP server, by whatever way it is reached."""
    timeout = _seconds("connect_timeout", given, connect_timeout(_CONNECT_TIMEOUT))
    via, ssh_port = given.get("via", ""), _number("ssh_port", given, 65535)
    if "via" in given and via not in (TLS, SSH):
        raise LocalProtocolError(f"via={via} in the URL is neither {TLS} nor {SSH}")
    if ssh_port is not None and via != SSH:
        raise LocalProtocolError(f"ssh_port= in the URL goes with via={SSH} only")
    if not via:
        return ServerAddress.parse(where, timeout=timeout)
    if via == TLS:
        return ServerAddress.parse(f"{TLS}://{where}", timeout=timeout)
    user, at, name = where.rpartition("@")
    host, port = parse_address(name)
    bracketed, own = f"[{host}]" if ":" in host else host, f":{ssh_port}" if ssh_port else ""
    return ServerAddress.parse(f"{SSH}://{user}{at}{bracketed}{own}/{port}", timeout=timeout)


def _selector(path: str, text: str) -> Selector:
    busid = path.removeprefix("/").removesuffix("/")
    if "/" in busid or len(busid.encode()) > _MAX_BUSID or any(c.isspace() for c in busid):
        raise LocalProtocolError(f"{busid!r} in {text!r} is not a device: {_FORM}")
    return Selector.parse(busid)


def _parameters(query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for piece in query.split("&") if query else ():
        name, equals, value = piece.partition("=")
        if name not in _PARAMETERS:
            raise LocalProtocolError(f"the URL has an unknown parameter {name!r}: there are {', '.join(_PARAMETERS)}")
        if not equals:
            raise LocalProtocolError(f"the URL's parameter {name} needs a value: write {name}=VALUE")
        if name in given:
            raise LocalProtocolError(f"the URL has the parameter {name} twice")
        given[name] = unquote(value)  # not with + for blanks: files have + in their names
    return given


def _filled(name: str, given: dict[str, str]) -> str:
    if given.get(name) == "":
        raise LocalProtocolError(f"the URL's parameter {name} is empty: write {name}=VALUE")
    return given.get(name, "")


def _number(name: str, given: dict[str, str], most: int) -> int | None:
    if name not in given:
        return None
    value = given[name]
    if not (value.isascii() and value.isdigit() and len(value) < 6 and int(value) <= most):
        raise LocalProtocolError(f"{name}={value} in the URL is not a number from 0 to {most}")
    return int(value)


def _syslog(given: dict[str, str]) -> int:
    value = given.get("syslog", "0").lower()
    if value in _ON:
        return LOG_PORT
    if value in _OFF:
        return 0
    if value.isascii() and value.isdigit() and len(value) < 6 and int(value) < 65536:
        return int(value)
    raise LocalProtocolError(f"syslog={value} in the URL is neither 1, 0 nor a TCP port")


def _offer(given: dict[str, str]) -> bool:
    value = given.get("offer", "0").lower()
    if value not in (*_ON, *_OFF):
        raise LocalProtocolError(f"offer={value} in the URL is neither 1 nor 0")
    return value in _ON


def _seconds(name: str, given: dict[str, str], default: float) -> float:
    value = given.get(name, default)
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MAX_SECONDS:  # not true for NaN either
        raise LocalProtocolError(
            f"{name}={value} in the URL is not a time in seconds up to {_MAX_SECONDS:.0f}: write {name}=10"
        )
    return seconds


def _level(given: dict[str, str]) -> str:
    value = given.get("logging", "").lower()
    if "logging" in given and value not in LOG_LEVELS:
        raise LocalProtocolError(f"logging={value} in the URL is none of {', '.join(LOG_LEVELS)}")
    return value
