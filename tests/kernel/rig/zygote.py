"""Runs in the guest, in its saved state: forks programs from a process that has imported what they need.

Speaks the agent's protocol, but a connection's first line is a JSON list: the file to log to, or "", and the arguments
of the interpreter (-c, -m or a file first). With a log the program stays in the background; the answer is its pid.
Started as such a program, it is the next one's parent, with more imported.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys


def main(port: int, *modules: str) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(error, file=sys.stderr)
    gc.freeze()
    with socket.create_server(("", port)) as server:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)  # init's shell ignores it
                server.close()
                serve(connection)
                return
            connection.close()


def serve(connection: socket.socket) -> None:
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(1)
    log, *arguments = json.loads(line)
    stdin = stdout = connection.fileno()
    if log:
        stdin, stdout = os.open("/dev/null", os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    program = os.fork()
    if program == 0:
        os.setsid()
        for number, file in enumerate((stdin, stdout, stdout)):
            os.dup2(file, number)
        connection.close()
        run(arguments)
        return
    if log:
        connection.sendall(b"%d\n\1rc=0\n" % program)
    else:
        _, status = os.waitpid(program, 0)
        connection.sendall(b"\n\1rc=%d\n" % (os.waitstatus_to_exitcode(status) & 255))
    os._exit(0)  # without the interpreter's end, which touches all of the memory that is shared


def run(arguments: list[str]) -> None:
    # Not closed with the objects: a program that was forked in its turn has others in their place.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
    first, *rest = arguments
    if first == "-c":
        sys.argv = [first, *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)  # noqa: S102
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
