"""Deciding by 10 000 rules of access, beside a loop that looks at each of them: microseconds for one decision.

The rules are chosen to be as bad as can be: every network length, every client alike, everything denied again.

    python bench/access_rules.py [--rules 10000]
"""

from __future__ import annotations

import argparse
import ipaddress
import time
from collections.abc import Callable
from functools import partial

from usbip_capture.access.clients import Requester
from usbip_capture.access.rules import CLOSED, AccessRule, AccessRules
from usbip_capture.usb.info import DeviceInfo, InterfaceInfo, Speed

INTERFACES = tuple(InterfaceInfo(code, 0, 0) for code in range(32))
DEVICE = DeviceInfo("1-1.4", 1, 5, Speed.HIGH, 0x303A, 0x4001, interfaces=INTERFACES)
SERIAL = "0123456789"
LIMIT_US = 1000.0
REPEATS = 20
BASE = int(ipaddress.ip_address("2001:db8::"))


def addresses(count: int) -> list[str]:
    """Each of one address."""
    return [f"{action} 198.51.{n >> 8 & 255}.{n & 255} 303a:4001" for n, action in _numbered(count)]


def lengths(count: int) -> list[str]:
    """Networks of IPv6 of each length, around the client."""
    return [
        f"{action} {ipaddress.ip_network((BASE, 1 + n % 128), strict=False)} 1-{n % 900}"
        for n, action in _numbered(count)
    ]


def ports(count: int) -> list[str]:
    """Of every client, each for another port."""
    return [f"{action} any {1 + n % 900}-{1 + n // 900}" for n, action in _numbered(count)]


def denied(count: int) -> list[str]:
    """Serial numbers that are allowed, and the VID:PID of each denied."""
    half = count // 2
    return [f"allow any {n:04x}:0001:{SERIAL}" for n in range(half)] + [f"deny any {n:04x}:0001" for n in range(half)]


def denied_by_networks(count: int) -> list[str]:
    """Ports that are allowed to everybody, and each of them denied by one of many networks."""
    half = count // 2
    allowed = [f"allow any {1 + n % 900}-{1 + n // 900}" for n in range(half)]
    networks = [ipaddress.ip_network((BASE, 1 + n % 128), strict=False) for n in range(half)]
    return allowed + [f"deny {net} {1 + n % 900}-{1 + n // 900}" for n, net in enumerate(networks)]


def _numbered(count: int) -> list[tuple[int, str]]:
    return [(n, "deny" if n % 3 == 0 else "allow") for n in range(count)]


def look_at_each(rules: AccessRules, requester: Requester) -> list[AccessRule]:
    """The reference: those that match."""
    return [rule for rule in rules if rule.matches(requester, DEVICE, SERIAL)]


def best(work: Callable[[], object]) -> float:
    """Microseconds, the best of some."""
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found) * 1e6


def main() -> None:
    """Print a line for each kind of rules; exit code 1 if one takes a millisecond."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, default=10_000)
    count = parser.parse_args().rules
    requester = Requester.of("2001:db8::", "", "paired:ann")
    worst = 0.0
    print(f"{count} rules{'':14}  making ms  connect us  device us  loop us")
    for kind in (addresses, lengths, ports, denied, denied_by_networks):
        parsed = [AccessRule.parse(text) for text in kind(count)]
        start = time.perf_counter()
        rules = AccessRules(CLOSED, parsed)
        making = (time.perf_counter() - start) * 1e3
        connect = best(partial(rules.connecting, requester))
        device = best(partial(rules.deciding, requester, DEVICE, SERIAL))
        loop = best(partial(look_at_each, rules, requester))
        worst = max(worst, connect, device)
        print(f"{kind.__name__:24} {making:10.1f} {connect:11.1f} {device:10.1f} {loop:8.0f}")
    raise SystemExit(worst >= LIMIT_US)


if __name__ == "__main__":
    main()
