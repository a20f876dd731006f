"""A dashboard whose every answer the test decides, for what a good server never sends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

TOKEN = "a-token-of-the-test"


class ScriptedDashboard(NamedTuple):
    """url: where it is. asked: the path of each request."""

    url: str
    asked: list[str]


@contextmanager
def scripted_dashboard(answers: Mapping[str, Any]) -> Iterator[ScriptedDashboard]:
    """answers: path -> text, or what becomes JSON. Other paths, and other tokens than TOKEN, are refused."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            known = self.path in answers and self.headers["Authorization"] == f"Bearer {TOKEN}"
            answer = answers[self.path] if known else {"error": f"{self.path} is refused"}
            body = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(200 if known else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield ScriptedDashboard(f"http://127.0.0.1:{server.server_port}", asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)
