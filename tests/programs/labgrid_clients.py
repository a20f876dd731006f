"""Runs `labgrid-client` again and again in one process: to import it takes longer than what it does.

A line of JSON each on standard input, `{"user": NAME, "arguments": [...]}`, and on standard output `[EXIT CODE, TEXT]`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
from functools import partial
from importlib import import_module
from typing import Any

client = import_module("labgrid.remote.client")
aio = import_module("grpc").aio
step_logger = import_module("labgrid.logging").StepLogger


def own_connection(open_channel: Any, **given: Any) -> Any:
    """A channel that shares its connection with none before it, as that of another process."""
    options = [*given.pop("options", ()), ("grpc.use_local_subchannel_pool", 1)]
    return open_channel(**given, options=options)


def run(user: str, arguments: list[str]) -> tuple[int, str]:
    """The exit code of one call, and what it has printed."""
    os.environ["LG_USERNAME"] = user
    sys.argv = ["labgrid-client", *arguments]
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            client.main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            step_logger.stop()
    return code, output.getvalue()


def main() -> None:
    """Until standard input ends."""
    aio.insecure_channel = partial(own_connection, aio.insecure_channel)
    loop = asyncio.new_event_loop()  # one for all calls: grpc may still call a loop that is closed
    setattr(loop, "close", lambda: None)  # noqa: B010  a method
    setattr(asyncio, "new_event_loop", lambda: loop)  # noqa: B010  as above
    asking = os.fdopen(os.dup(0))  # its exit() closes standard input
    for line in asking:
        asked = json.loads(line)
        sys.stdout.write(f"{json.dumps(run(asked['user'], asked['arguments']))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
