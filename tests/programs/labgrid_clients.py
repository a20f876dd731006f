"""Runs `labgrid-client` again and again in one process: to import it takes longer than what it does.

A line of JSON each on standard input, `{"user": NAME, "arguments": [...]}`, and on standard output `[EXIT CODE, TEXT]`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from importlib import import_module

client = import_module("labgrid.remote.client")
step_logger = import_module("labgrid.logging").StepLogger


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
    asking = os.fdopen(os.dup(0))  # its exit() closes standard input
    for line in asking:
        asked = json.loads(line)
        sys.stdout.write(f"{json.dumps(run(asked['user'], asked['arguments']))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
