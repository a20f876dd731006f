"""The blocks that describe a capture's interfaces."""

from __future__ import annotations

from usbip_capture.capture.channel import UsbChannel
from usbip_capture.capture.log_channel import LogChannel
from usbip_capture.capture.remarks import NOTES
from usbip_capture.filters.language import Filter
from usbip_capture.records.pcapng import LINKTYPE_USB_LINUX_MMAPPED, LINKTYPE_WIRESHARK_UPPER_PDU, Section


def describe(section: Section, channel: UsbChannel | LogChannel, snaplen: int, capture_filter: Filter | None) -> bytes:
    """The description of a channel's interface, its number being the count of those before."""
    channel.described = True
    usb = isinstance(channel, UsbChannel)
    return section.interface(
        name=channel.name,
        description=channel.description,
        snaplen=snaplen,
        speed=channel.speed.bits_per_second if isinstance(channel, UsbChannel) else 0,
        capture_filter=capture_filter.text if capture_filter and usb else "",
        link_type=LINKTYPE_USB_LINUX_MMAPPED if isinstance(channel, UsbChannel) else channel.link_type,
    )[1]


def describe_notes(section: Section) -> bytes:
    """That of the remarks."""
    description = "usbip-capture: marks and notes"
    return section.interface(name=NOTES, description=description, snaplen=0, link_type=LINKTYPE_WIRESHARK_UPPER_PDU)[1]
