"""Link types of captures: which of them are USB as it is told here, and what the others are called.

Ref: https://www.tcpdump.org/linktypes.html
"""

from __future__ import annotations

USB_LINUX = 189
USB_LINUX_MMAPPED = 220
USBPCAP = 249
UPPER_PDU = 252

_NAMES = {
    0: "BSD loopback",
    1: "Ethernet",
    101: "raw IP",
    105: "802.11",
    113: "Linux cooked",
    127: "802.11 with radiotap",
    147: "user 0",
    186: "USB of FreeBSD",
    187: "Bluetooth HCI",
    195: "802.15.4",
    201: "Bluetooth HCI",
    227: "CAN",
    228: "IPv4",
    229: "IPv6",
    239: "NFLOG",
    251: "Bluetooth LE",
    UPPER_PDU: "log lines and exported PDUs",
    253: "netlink",
    266: "USB of macOS",
    272: "Bluetooth LE of nRF Sniffer",
    276: "Linux cooked",
    288: "packets on a USB 2.0 cable",
    293: "packets on a low-speed USB cable",
    294: "packets on a full-speed USB cable",
    295: "packets on a high-speed USB cable",
}
_USB = (USB_LINUX, USB_LINUX_MMAPPED, USBPCAP)
#: Those in which USB/IP on TCP may be.
_IP = (0, 1, 12, 101, 108, 113, 228, 229, 276)


def is_usb(link_type: int) -> bool:
    """Whether its packets are events of URBs."""
    return link_type in _USB


def may_hold_tcp(link_type: int) -> bool:
    """Whether its packets may be of TCP, which `usbip-capture convert` reads."""
    return link_type in _IP


def link_type_name(link_type: int) -> str:
    """As it is said to people: `link type 1 (Ethernet): not USB`."""
    name = _NAMES.get(link_type)
    verdict = "not URBs of a host" if name is not None and "USB" in name else "not USB"
    return f"link type {link_type}{f' ({name})' if name else ''}: {verdict}"
