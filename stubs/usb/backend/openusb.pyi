from collections.abc import Callable

from usb.backend import IBackend

get_backend: Callable[..., IBackend | None]
