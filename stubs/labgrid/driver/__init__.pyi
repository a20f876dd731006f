from collections.abc import Callable
from logging import Logger
from typing import Any, TypeVar

import attr
from labgrid.binding import BindingMixin

_F = TypeVar("_F", bound=Callable[..., Any])

@attr.s(eq=False)
class Driver(BindingMixin):
    logger: Logger
    @classmethod
    def check_active(cls, func: _F) -> _F: ...
    def get_export_vars(self) -> dict[str, str]: ...
