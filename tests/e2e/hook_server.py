"""A hook server that a test makes slow, dead, or worse, on one address.

Invariant: what was answered as a hook should is in ``heard`` before the answer goes out; nothing else is.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .daemon import free_port

Document = Mapping[str, Any]

YES = {"allow": True}
PREFIX = "resumable.upload."
"""Of an event's type."""


class HookServer:
    """``mode``: ``well``, ``slow``, ``garbage``, ``cut`` (dies within its answer), ``error`` or ``redirect``.

    ``answer`` gets each document, and gives the JSON that it is answered with; None: 204. ``pause``: seconds of
    ``slow``.
    """

    def __init__(self, answer: Callable[[Document], Document | None] = lambda _: None, pause: float = 1.5) -> None:
        self.port = free_port()
        self.mode = "well"
        self.answer = answer
        self.pause = pause
        self.heard: list[Document] = []
        self.headers: list[Mapping[str, str]] = []
        self.reached = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def documents(self) -> list[Document]:
        """What was heard so far."""
        with self._lock:
            return list(self.heard)

    def of(self, upload_id: str) -> list[str]:
        """The kinds of what was heard of an upload, in order, without ``resumable.upload.``; each event once."""
        seen = {each["id"]: each for each in self.documents if each["subject"] == upload_id}
        return [each["type"].rpartition(".")[2] for each in seen.values()]

    def start(self) -> HookServer:
        self._server = _Server(("127.0.0.1", self.port), _handler_of(self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def die(self) -> None:
        """Nobody listens any more; connections are closed."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut_all()

    def __enter__(self) -> HookServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.die()

    def react(self, document: Document, headers: Mapping[str, str]) -> tuple[int, bytes] | None:
        """Status and body, None for half an answer."""
        self.reached += 1
        mode = self.mode
        if mode == "garbage":
            if ".before-" not in document["type"]:
                self._hear(document, headers)  # any 2xx says that an event has arrived
            return 200, b'{"allow": tru'
        if mode == "cut":
            return None
        if mode == "error":
            return 500, b"sorry"
        if mode == "redirect":
            return 302, b""
        if mode == "slow":
            self._over.wait(self.pause)
        answer = self.answer(document)
        self._hear(document, headers)
        return (204, b"") if answer is None else (200, json.dumps(answer).encode())

    def _hear(self, document: Document, headers: Mapping[str, str]) -> None:
        with self._lock:
            self.heard.append(document)
            self.headers.append(headers)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The daemon was killed while it was answered."""

    def cut_all(self) -> None:
        for request in tuple(self._open):
            super().shutdown_request(request)


def _handler_of(hook: HookServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = hook.react(json.loads(body), {name.lower(): value for name, value in self.headers.items()})
            if answer is None:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
                self.close_connection = True
                return
            status, said = answer
            self.send_response(status)
            if status == 302:
                self.send_header("Location", hook.url)
            self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None: ...

    return Handler


def by_type(**answers: Any) -> Callable[[Document], Document | None]:
    """Answers by kind, ``before_create`` for before-create; yes to other questions."""

    def answer(document: Document) -> Document | None:
        kind = document["type"].removeprefix(PREFIX).replace("-", "_")
        found = answers.get(kind, YES if kind.startswith("before_") else None)
        return found(document) if callable(found) else found

    return answer
