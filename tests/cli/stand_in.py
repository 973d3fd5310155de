"""A daemon's admin API as far as the command line asks for it, without a daemon."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, Any]
Asked = tuple[str, str, dict[str, str]]


class StandIn:
    """``answer`` is called with method, path and query; what was asked is kept in ``asked``."""

    def __init__(self, answer: Callable[[str, str, dict[str, str]], Answer]) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.tokens: list[str | None] = []
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator[StandIn]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def answered(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                stand_in.asked.append((self.command, parts.path, query))
                stand_in.tokens.append(self.headers.get("Authorization"))
                status, document = stand_in.answer(self.command, parts.path, query)
                body = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response_only(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = answered

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def problem(status: int, detail: str) -> Answer:
    return status, {"type": "about:blank", "title": "x", "status": status, "detail": detail}
