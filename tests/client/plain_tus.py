"""A plain tus server of somebody else's kind: creation, HEAD and PATCH, with no status, no digests and no removal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class PlainTus(ThreadingHTTPServer):
    """``uploads``: length and bytes by path. ``breaks``: so many requests with content end in the middle."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.uploads: dict[str, tuple[int | None, bytearray]] = {}
        self.breaks = 0

    @property
    def url(self) -> str:
        """Where uploads are created."""
        return f"http://127.0.0.1:{self.server_address[1]}/files"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PlainTus

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def _answer(self, status: int, **fields: str) -> None:
        self.send_response(status)
        self.send_header("Tus-Resumable", "1.0.0")
        self.send_header("Content-Length", "0")
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_OPTIONS(self) -> None:
        self._answer(204, Tus_Version="1.0.0", Tus_Extension="creation,creation-defer-length")

    def do_POST(self) -> None:
        path = f"/files/{len(self.server.uploads):032x}"
        length = self.headers.get("Upload-Length")
        self.server.uploads[path] = None if length is None else int(length), bytearray()
        self._answer(201, Location=path)  # which is relative

    def do_HEAD(self) -> None:
        found = self.server.uploads.get(self.path)
        if found is None:
            return self._answer(404)
        length = {} if found[0] is None else {"Upload_Length": str(found[0])}
        self._answer(200, Upload_Offset=str(len(found[1])), Cache_Control="no-store", **length)

    def do_GET(self) -> None:
        self._answer(404)

    def do_PATCH(self) -> None:
        data = self.server.uploads[self.path][1]
        if self.headers.get("Upload-Length"):
            self.server.uploads[self.path] = int(self.headers["Upload-Length"]), data
        size = int(self.headers["Content-Length"])
        if int(self.headers["Upload-Offset"]) != len(data):
            return self._answer(409)
        if self.server.breaks and size:
            self.server.breaks -= 1
            data += self.rfile.read(size // 2)
            self.close_connection = True
            return
        data += self.rfile.read(size)
        self._answer(204, Upload_Offset=str(len(data)))


@contextmanager
def plain_tus() -> Iterator[PlainTus]:
    """One that runs."""
    with PlainTus() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
