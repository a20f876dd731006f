"""Filters of captures, as a request has them."""

from __future__ import annotations

from usbip_capture.errors import LocalProtocolError
from usbip_capture.filters.language import Filter, FilterError, parse

#: Characters.
MAX_LENGTH = 4096


def parsed_filter(text: str) -> Filter | None:
    """None if it is empty, which lets everything pass. Raises LocalProtocolError."""
    if len(text) > MAX_LENGTH:
        raise LocalProtocolError(f"the filter is too long: it may have {MAX_LENGTH} characters")
    try:
        return parse(text)
    except FilterError as error:
        raise LocalProtocolError(f"the filter is not understood: {error}") from error
