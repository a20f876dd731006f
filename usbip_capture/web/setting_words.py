"""What each key of the table `[server]` is for, with the words of the command line.

A key that is not here is shown without words.
"""

from __future__ import annotations

from typing import NamedTuple

NETWORK, ACCESS, EXPORTS, RECORDING, DASHBOARD = "network", "access", "exports", "recording", "dashboard"
HOOKS = "hooks"


class Words(NamedTuple):
    """group: where it is shown; help: what it is for."""

    group: str
    help: str


WORDS = {
    "exports": Words(EXPORTS, "what is exported: a port such as 1-1.4, VID:PID, VID:PID:SERIAL, class:03, or all"),
    "listen": Words(NETWORK, "where clients connect to; port 0 takes a free one"),
    "unix": Words(NETWORK, "a Unix socket, which only you can connect to; without --listen, nowhere else"),
    "name": Words(NETWORK, "what this server is called"),
    "max-clients": Words(ACCESS, "at a time; 0: no limit"),
    "max-clients-per-address": Words(ACCESS, "at a time from one address; 0: no limit"),
    "connections-per-second": Words(ACCESS, "from one address; 0: no limit"),
    "request-timeout": Words(ACCESS, "seconds for the first request of a client"),
    "max-devices": Words(EXPORTS, "at a time; 0: no limit"),
    "rules": Words(ACCESS, "who may have which device: allow or deny, CLIENT, DEVICE"),
    "access": Words(ACCESS, "closed: this machine and whom a rule allows; open: everybody who can connect"),
    "allow": Words(ACCESS, "who may connect from other machines, such as 192.0.2.0/24"),
    "allow-public": Words(ACCESS, "everybody may connect who reaches this machine"),
    "force": Words(EXPORTS, "with --all and --class: disks in use, too"),
    "reset": Words(EXPORTS, "reset a device when a client has released it"),
    "announce": Words(NETWORK, "announce the server on the local network"),
    "pcap": Words(RECORDING, "capture all sessions into FILE, each on an interface of its own"),
    "rotate": Words(RECORDING, "several files, as dumpcap writes them"),
    "audit": Words(RECORDING, "who connected, had which device or was refused: a line of JSON for each event"),
    "audit-syslog": Words(RECORDING, "the same to a syslog: HOST[:PORT], tcp:HOST[:PORT], /dev/log or unix:PATH"),
    "tls": Words(NETWORK, "where clients connect to within TLS: those that are paired, and those that rules allow"),
    "client-ca": Words(NETWORK, "authorities whose certificates prove with --tls who a client is, in PEM"),
    "web": Words(DASHBOARD, "pages for a browser, and interfaces for scripts: devices, clients, events, captures"),
    "web-tls": Words(DASHBOARD, "the dashboard within TLS, with the certificate of --tls"),
    "web-host": Words(DASHBOARD, "a further name by which browsers call this machine, such as pi.example.org"),
    "hooks": Words(HOOKS, "what is called at plug, unplug, attach, detach, refused or capture-done"),
    "captures": Words(RECORDING, "where captures that are begun in the dashboard are kept"),
    "captures-size": Words(RECORDING, "MB that these may take together; 0: no limit"),
}
