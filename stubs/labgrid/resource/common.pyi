from logging import Logger
from typing import Any, TypeVar

import attr
from labgrid.binding import BindingMixin

_M = TypeVar("_M", bound=ResourceManager)

@attr.s(eq=False)
class Resource(BindingMixin):
    avail: bool
    logger: Logger
    def poll(self) -> None: ...

@attr.s(eq=False)
class NetworkResource(Resource):
    extra: dict[str, Any]
    host: str = attr.ib()

class ResourceManager:
    resources: list[Any]
    logger: Logger
    @classmethod
    def get(cls: type[_M]) -> _M: ...
    def __attrs_post_init__(self) -> None: ...
    def on_resource_added(self, resource: Any) -> None: ...
    def poll(self) -> None: ...

@attr.s(eq=False)
class ManagedResource(Resource):
    manager_cls: type[ResourceManager]
    timeout: float
