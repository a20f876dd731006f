"""Every option of a capture, declared once: Wireshark's dialog, command line, README and our own checks read it.

Plain classes and no import, because Wireshark starts us anew for each question, several times at each start.

Ref: Wireshark 4.0, doc/extcap.adoc and extcap_parser.c (types and parameters of the `arg` sentence).
"""

from __future__ import annotations

from usbip_capture.options.option import (
    BOOLEAN,
    DOUBLE,
    FILESELECT,
    MULTICHECK,
    PASSWORD,
    SELECTOR,
    STRING,
    UNSIGNED,
    Option,
)

#: The Wireshark interface that is always there.
INTERFACE = "usbip-remote"

SERVER = "Server"
CAPTURE = "Capture"
RELAY = "Relay"
LOG = "Log"
DEBUG = "Debug"

#: `syslog.LOG_PORT`, which is not imported for it: the queries are to load as few modules as can be.
LOG_PORT = 1514
_DEVICE = r"([^\s:/,]+|(0[xX])?[0-9A-Fa-f]+:(0[xX])?[0-9A-Fa-f]+(:[^\s,]+)?)"

OPTIONS = (
    Option(
        "host",
        STRING,
        "",
        "Server",
        "Name or address of the USB/IP server, perhaps with tls:// or ssh:// before it; demo is a simulated device, "
        "local this machine, replay:FILE the devices of a capture; in mode server its dashboard, perhaps with "
        "https:// or ssh:// before it",
        group=SERVER,
        placeholder="raspberrypi.local, 192.0.2.10, demo or local",
        required=True,
        validation=r"^\s*(([Tt][Ll][Ss]|[Ss][Ss][Hh]|[Hh][Tt][Tt][Pp][Ss]?)://[^\s/]+(/[0-9]*)?"
        r"|[Rr][Ee][Pp][Ll][Aa][Yy]:.*\S|[^\s/]([^/]*[^\s/])?)\s*$",
        expects="the name or the address of a server, such as raspberrypi.local, 192.0.2.10, pi:3241 or ssh://pi, or "
        "replay:FILE",
    ),
    Option(
        "port",
        UNSIGNED,
        3240,
        "Port",
        "TCP port of the server",
        group=SERVER,
        limits=(1, 65535),
    ),
    Option(
        "device",
        SELECTOR,
        "auto",
        "Device",
        "Which device: a busid such as 1-1.2, VID:PID such as 303a:4004, serial=NUMBER, a comma-separated list, or "
        "all; auto: the only one that is exported",
        group=SERVER,
        placeholder="Reload",
        validation=rf"^\s*{_DEVICE}(\s*,\s*{_DEVICE})*\s*$",
        expects="auto, all, a busid such as 1-1.2, VID:PID in hexadecimal such as 303a:4004, serial=NUMBER, or a "
        "comma-separated list",
        choices=(("auto", "The only device that is exported"), ("all", "All devices")),
        reload=True,
    ),
    Option(
        "devices",
        MULTICHECK,
        "",
        "Several devices",
        "Several devices, instead of the one above, each on an interface of its own: a comma-separated list as of "
        "--device, or all; empty: those of --device",
        group=SERVER,
        validation=rf"^\s*{_DEVICE}(\s*,\s*{_DEVICE})*\s*$",
        expects="busids such as 1-1.2, VID:PID such as 303a:4004 or serial=NUMBER, separated by commas, or all",
    ),
    Option(
        "token",
        PASSWORD,
        "",
        "Token",
        "Of the server's dashboard, in mode server; empty: that of USBIP_CAPTURE_TOKEN, or of [tokens] in the "
        "configuration",
        group=SERVER,
    ),
    Option(
        "mode",
        SELECTOR,
        "probe",
        "Mode",
        "probe: import the device, read it as a host does, then read what its IN endpoints send; "
        "relay: show what another USB/IP client and the device say to each other; server: join what others do at a "
        "server of usbip-capture that has a dashboard; syslog: only the device's own log",
        group=CAPTURE,
        choices=(
            ("probe", "Probe: import the device, read it, listen to it"),
            ("relay", "Relay: watch another client that uses the device, see the tab Relay"),
            ("server", "Server: watch what others do at a usbip-capture server"),
            ("syslog", "Log: only what the device logs, see the tab Log"),
        ),
    ),
    Option(
        "descriptors",
        BOOLEAN,
        True,
        "Read descriptors",
        "Read all descriptors at the start; without them Wireshark shows most classes as raw bytes",
        group=CAPTURE,
    ),
    Option(
        "listen-in",
        BOOLEAN,
        True,
        "Listen to IN endpoints",
        "Read the interrupt, bulk and isochronous IN endpoints until stopped, except bulk IN of mass storage",
        group=CAPTURE,
    ),
    Option(
        "reconnect",
        BOOLEAN,
        True,
        "Wait for a disconnected device",
        "When the device is unplugged or reset, wait for it and import it again; off: end the capture",
        group=CAPTURE,
    ),
    Option(
        "snaplen",
        UNSIGNED,
        262144,
        "Snapshot length",
        "How many bytes to keep of each packet, its header of 64 bytes included",
        group=CAPTURE,
        limits=(64, 262144),
        unit="bytes",
    ),
    Option(
        "duration",
        DOUBLE,
        0,
        "Duration",
        "Stop after this time; 0: capture until stopped",
        group=CAPTURE,
        limits=(0, 31536000),
        unit="seconds",
    ),
    Option(
        "count",
        UNSIGNED,
        0,
        "Stop after",
        "Stop after this many packets; 0: no limit",
        group=CAPTURE,
        limits=(0, 2147483647),
        unit="packets",
    ),
    Option(
        "record-unlinks",
        BOOLEAN,
        False,
        "Record UNLINK",
        "Also record how URBs are unlinked, CMD_UNLINK and RET_UNLINK, on an interface of its own (unlink0)",
        group=CAPTURE,
    ),
    Option(
        "relay-listen",
        STRING,
        "127.0.0.1:3240",
        "Listen on",
        "Where the other client is to connect to, in mode relay: ADDRESS:PORT; port 0 takes a free one",
        group=RELAY,
        validation=r"^\s*(\S+:)?[0-9]+\s*$",
        expects="an address and a port, such as 127.0.0.1:3240, [::1]:3240 or 0.0.0.0:3240",
    ),
    Option(
        "relay-allow",
        STRING,
        "",
        "Allow",
        "Which other machines may connect, in mode relay, a comma-separated list; needed for any address but 127.0.0.1 "
        "and ::1, as USB/IP has no authentication",
        group=RELAY,
        placeholder="192.0.2.0/24, 192.0.2.7",
    ),
    Option(
        "syslog",
        SELECTOR,
        "off",
        "Device's log",
        "Also capture the device's own log, on the interface syslog0: connect to the server's log port, as ESP32 "
        "bridges have one, or listen for devices that send their log",
        group=LOG,
        choices=(("off", "Off"), ("connect", "Connect to the server"), ("listen", "Listen for devices that send")),
        alone="connect",
    ),
    Option(
        "syslog-port",
        UNSIGNED,
        LOG_PORT,
        "Log port",
        "Port of the log, to connect to or to listen on",
        group=LOG,
        limits=(1, 65535),
    ),
    Option(
        "syslog-listen",
        STRING,
        "",
        "Listen on",
        "Where to listen for logs: ADDRESS, ADDRESS:PORT or *:PORT, perhaps with tcp:, udp: or tls: before it, or a "
        "comma-separated list; empty: TCP and UDP on every address of this machine",
        group=LOG,
        placeholder="tcp:*, udp:192.0.2.1:514, tls:*:6514",
    ),
    Option(
        "syslog-level",
        SELECTOR,
        "debug",
        "Minimum severity",
        "Minimum severity to capture",
        group=LOG,
        choices=(
            ("emergency", "Emergency"),
            ("alert", "Alert"),
            ("critical", "Critical"),
            ("error", "Error"),
            ("warning", "Warning"),
            ("notice", "Notice"),
            ("info", "Information"),
            ("debug", "Everything"),
        ),
    ),
    Option(
        "syslog-align",
        BOOLEAN,
        False,
        "Align the device's clock",
        "Give each message of the log the time at which the device made it, by the smallest delay seen, and mark it "
        "so; off: the time of its arrival",
        group=LOG,
    ),
    Option(
        "syslog-certificate",
        FILESELECT,
        "",
        "Certificate",
        "PEM file with the certificate and its key, to listen with TLS",
        group=LOG,
        placeholder="server.pem",
    ),
    Option(
        "log-level",
        SELECTOR,
        "info",
        "Log level",
        "How much is written into the log file",
        group=DEBUG,
        choices=(("error", "Errors"), ("warning", "Warnings"), ("info", "Information"), ("debug", "Everything")),
    ),
    Option(
        "log-file",
        FILESELECT,
        "",
        "Log file",
        "Where the log goes; empty: nowhere",
        group=DEBUG,
        placeholder="usbip-capture.log",
    ),
)


class Choices:
    """What was chosen: one attribute for each option, by its `key`."""

    host: str
    port: int
    device: str
    devices: str
    token: str
    mode: str
    descriptors: bool
    listen_in: bool
    reconnect: bool
    snaplen: int
    duration: float
    count: int
    record_unlinks: bool
    relay_listen: str
    relay_allow: str
    syslog: str
    syslog_port: int
    syslog_listen: str
    syslog_level: str
    syslog_align: bool
    syslog_certificate: str
    log_level: str
    log_file: str

    def __init__(self, given: dict[str, str]) -> None:
        """given: texts by option name; what is not in it has its default. Raises LocalProtocolError."""
        for option in OPTIONS:
            text = given.get(option.name)
            setattr(self, option.key, option.default if text is None else option.parse(text))


def markdown_table() -> str:
    """The options as a Markdown table, for the README."""
    rows = ["| option | preference | tab | default | what it does |", "| --- | --- | --- | --- | --- |"]
    for option in OPTIONS:
        default = f"`{option.default_text}`" if option.default_text else ""
        note = ""
        if option.kind in (UNSIGNED, DOUBLE):
            note = f" ({option.expectation})"
        elif len(option.choices) > 1 and not option.reload:
            note = " (" + ", ".join(f"`{value}`" for value, _ in option.choices) + ")"
        rows.append(f"| `{option.flag}` | `{option.preference}` | {option.group} | {default} | {option.help}{note} |")
    return "\n".join(rows) + "\n"
