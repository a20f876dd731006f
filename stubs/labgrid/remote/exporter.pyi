from logging import Logger
from typing import Any

exports: dict[str, type[Any]]

class ResourceExport:
    data: dict[str, Any]
    host: str
    proxy: str | None
    proxy_required: bool
    local: Any
    local_params: dict[str, Any]
    logger: Logger
    def __init__(
        self, data: dict[str, Any], host: str = ..., proxy: str | None = ..., proxy_required: bool = ...
    ) -> None: ...
    def __attrs_post_init__(self) -> None: ...
    @property
    def acquired(self) -> str | None: ...

def main() -> None: ...
