"""Applies a capture filter to the URBs of one device: at the submit where that is enough, else at the completion."""

from __future__ import annotations

from usbip_capture.filters.language import Facts, Filter
from usbip_capture.usb.info import DeviceInfo
from usbip_capture.usb.learner import EndpointLearner
from usbip_capture.usb.status import EINPROGRESS
from usbip_capture.usb.urb import DIR_IN, Completion, TransferType, Urb

_CONTROL = TransferType.CONTROL


class Matcher:
    """Not locked: whoever shows it URBs does that. `descriptors` recognizes the capture's own first requests."""

    def __init__(self, capture_filter: Filter, info: DeviceInfo) -> None:
        self._test = capture_filter.test
        self._learner = EndpointLearner(info)
        self._facts = Facts(device=info.busid, vid=info.idVendor, pid=info.idProduct)

    def submitted(self, urb: Urb, descriptors: bool) -> bool | None:
        """Whether a URB passes; None if its completion has to decide."""
        facts = self._of(urb, descriptors)
        facts.status = facts.length = None
        return self._test(facts)

    def completed(self, urb: Urb, completion: Completion, descriptors: bool) -> bool:
        """Whether a URB passes, now that all is known of it."""
        facts = self._of(urb, descriptors)
        facts.status, facts.length = completion.status, completion.actual_length
        return bool(self._test(facts))

    def pending(self, urb: Urb, descriptors: bool) -> bool:
        """Whether a URB passes that is still out when the capture ends: as usbmon's status of a submit."""
        facts = self._of(urb, descriptors)
        facts.status, facts.length = -EINPROGRESS, 0
        return bool(self._test(facts))

    def learn(self, urb: Urb, completion: Completion) -> None:
        """A URB came back, whether it passes or not: it may hold interfaces and their classes."""
        self._learner.saw(urb, completion)

    def _of(self, urb: Urb, descriptors: bool) -> Facts:
        facts = self._facts
        kind = urb.transfer_type
        facts.type = int(kind)
        facts.ep = 0 if kind == _CONTROL else urb.endpoint
        facts.inward = 1 if urb.endpoint & DIR_IN else 0
        facts.requested = urb.length
        facts.interface_class = self._learner.interface_class(urb)
        facts.descriptors = descriptors
        return facts
