"""A server on this machine that the daemon asks: for the keys of an issuer, or who may come in.

It runs in a thread, and can be closed and opened again on the same port.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from .daemon import free_port

Reply = tuple[int, Mapping[str, str], bytes]


class Asked:
    """``answer`` gets a request's header fields, by lower-case name, and may be changed at any time."""

    def __init__(self, answer: Callable[[Mapping[str, str]], Reply]) -> None:
        self.answer = answer
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/asked"
        self._server: ThreadingHTTPServer | None = None
        self.open()

    def open(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, fields, body = outer.answer({name.lower(): value for name, value in self.headers.items()})
                self.send_response(status)
                for name, value in {**fields, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
