# What this project uses of PyUSB 1.3, typed.
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from usb.backend import IBackend

class USBError(OSError):
    backend_error_code: int | None
    def __init__(self, strerror: str, error_code: int | None = ..., errno: int | None = ...) -> None: ...

class USBTimeoutError(USBError): ...
class NoBackendError(ValueError): ...

class Endpoint:
    bEndpointAddress: int
    bmAttributes: int
    wMaxPacketSize: int
    bInterval: int
    extra_descriptors: array[int]

class Interface:
    bInterfaceNumber: int
    bAlternateSetting: int
    bInterfaceClass: int
    bInterfaceSubClass: int
    bInterfaceProtocol: int
    iInterface: int
    extra_descriptors: array[int]
    def __iter__(self) -> Iterator[Endpoint]: ...

class Configuration:
    bConfigurationValue: int
    iConfiguration: int
    bNumInterfaces: int
    extra_descriptors: array[int]
    def __iter__(self) -> Iterator[Interface]: ...

class Device:
    bcdUSB: int
    idVendor: int
    idProduct: int
    bcdDevice: int
    iManufacturer: int
    iProduct: int
    iSerialNumber: int
    bNumConfigurations: int
    bus: int | None
    address: int | None
    speed: int | None
    port_number: int | None
    port_numbers: tuple[int, ...] | None
    default_timeout: int
    backend: IBackend
    _ctx: Any
    @property
    def langids(self) -> tuple[int, ...]: ...
    @property
    def product(self) -> str | None: ...
    @property
    def manufacturer(self) -> str | None: ...
    @property
    def serial_number(self) -> str | None: ...
    def __iter__(self) -> Iterator[Configuration]: ...
    def set_configuration(self, configuration: int | None = ...) -> None: ...
    def get_active_configuration(self) -> Configuration: ...
    def set_interface_altsetting(self, interface: int | None = ..., alternate_setting: int | None = ...) -> None: ...
    def clear_halt(self, ep: int) -> None: ...
    def reset(self) -> None: ...
    def read(self, endpoint: int, size_or_buffer: int | array[int], timeout: int | None = ...) -> array[int]: ...
    def write(self, endpoint: int, data: bytes | Sequence[int], timeout: int | None = ...) -> int: ...
    def ctrl_transfer(
        self,
        bmRequestType: int,
        bRequest: int,
        wValue: int = ...,
        wIndex: int = ...,
        data_or_wLength: int | bytes | array[int] | None = ...,
        timeout: int | None = ...,
    ) -> Any: ...

def find(
    find_all: bool = ...,
    backend: IBackend | None = ...,
    custom_match: Callable[[Device], bool] | None = ...,
    **args: Any,
) -> Any: ...
