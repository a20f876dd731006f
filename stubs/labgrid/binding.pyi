from typing import Any

import attr

@attr.s(eq=False)
class BindingMixin:
    bindings: Any
    target: Any = attr.ib()
    name: str | None = attr.ib()
    def __attrs_post_init__(self) -> None: ...
    def on_activate(self) -> None: ...
    def on_deactivate(self) -> None: ...
    @property
    def display_name(self) -> str: ...
