"""Link types of captures: which of them are USB as it is read here, and what the others are called.

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
    3: "AX.25",
    6: "Token Ring",
    8: "SLIP",
    9: "PPP",
    10: "FDDI",
    50: "PPP in HDLC framing",
    51: "PPPoE",
    100: "ATM",
    101: "raw IP",
    104: "Cisco HDLC",
    105: "802.11",
    107: "Frame Relay",
    113: "Linux cooked",
    117: "pflog of OpenBSD",
    119: "802.11 with Prism header",
    127: "802.11 with radiotap",
    138: "IP over IEEE 1394",
    143: "DOCSIS",
    147: "user 0",
    163: "802.11 with AVS header",
    166: "PPP with direction",
    186: "USB of FreeBSD",
    187: "Bluetooth HCI",
    192: "PPI",
    195: "802.15.4",
    201: "Bluetooth HCI",
    204: "PPP with direction",
    227: "CAN",
    228: "IPv4",
    229: "IPv6",
    230: "802.15.4",
    239: "NFLOG",
    247: "IP over InfiniBand",
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


def link_type_label(link_type: int) -> str:
    """For people: `link type 1 (Ethernet)`."""
    name = _NAMES.get(link_type)
    return f"link type {link_type}{f' ({name})' if name else ''}"


def link_type_name(link_type: int) -> str:
    """As people read it: `link type 1 (Ethernet): not USB`."""
    verdict = "not URBs of a host" if "USB" in _NAMES.get(link_type, "") else "not USB"
    return f"{link_type_label(link_type)}: {verdict}"
