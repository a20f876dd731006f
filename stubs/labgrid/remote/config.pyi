from typing import Any

class ResourceConfig:
    data: Any
    def __init__(self, filename: str, template_env: dict[str, Any] = ...) -> None: ...
