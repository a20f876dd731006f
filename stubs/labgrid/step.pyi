from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])

class Step:
    title: str
    tag: str | None
    source: Any
    args: Any
    exception: BaseException | None

class StepEvent:
    step: Step
    data: dict[str, Any]

class Steps:
    def subscribe(self, callback: Callable[[StepEvent], None]) -> None: ...
    def unsubscribe(self, callback: Callable[[StepEvent], None]) -> None: ...

steps: Steps

def step(
    *, title: str | None = None, args: list[str] = ..., result: bool = False, tag: str | None = None
) -> Callable[[_F], _F]: ...
