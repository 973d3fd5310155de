"""A vendor's own SDK in a process of its own: ``python -m bench.sdk az|gs ENDPOINT CONTAINER SPOOL``.

Changes when an SDK is best used in another way. Invariant: it sends pieces of 8 MiB with the checksums that we send,
four at once where it can. A small server, whose port is the first line it prints: POST /OBJECT with a file's name sends
that file, PUT /OBJECT writes the body to the file SPOOL, syncs it and sends it, GET /OBJECT answers the SHA-256 of what
the store has.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from bench.load import HOST

PIECE = 8 << 20
RECEIVED = 1 << 20
# the emulator's own, which everybody knows
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

Send = Callable[[str, str], None]
Fetch = Callable[[str], Iterable[bytes]]


def azure(endpoint: str, container: str) -> tuple[Send, Fetch]:
    """azure-storage-blob: four blocks at once, with MD5."""
    from azure.storage.blob import BlobServiceClient

    credential = {"account_name": ACCOUNT, "account_key": KEY}
    service = BlobServiceClient(endpoint, credential, max_block_size=PIECE, max_single_put_size=PIECE)
    client = service.get_container_client(container)

    def send(name: str, path: str) -> None:
        with open(path, "rb") as file:
            size = os.path.getsize(path)
            client.upload_blob(name, file, length=size, overwrite=True, max_concurrency=4, validate_content=True)

    return send, lambda name: client.download_blob(name).chunks()


def google(endpoint: str, container: str) -> tuple[Send, Fetch]:
    """google-cloud-storage: a resumable session, with CRC32C."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    client = storage.Client("test", AnonymousCredentials(), client_options={"api_endpoint": endpoint})
    bucket = client.bucket(container)

    def send(name: str, path: str) -> None:
        bucket.blob(name, chunk_size=PIECE).upload_from_filename(path, checksum="crc32c")

    return send, lambda name: [bucket.blob(name).download_as_bytes()]


SDKS = {"az": azure, "gs": google}


class Handler(BaseHTTPRequestHandler):
    """See the module."""

    protocol_version = "HTTP/1.1"

    def __init__(self, send: Send, fetch: Fetch, spool: str, *arguments: Any) -> None:
        self.upload, self.fetch, self.spool = send, fetch, spool
        super().__init__(*arguments)

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        self.upload(self.path[1:], self.rfile.read(size).decode())
        self._answer(b"")

    def do_PUT(self) -> None:
        left, buffer = int(self.headers["Content-Length"]), memoryview(bytearray(RECEIVED))
        with open(self.spool, "wb", buffering=0) as file:
            while left and (count := self.rfile.readinto(buffer[: min(left, RECEIVED)])):  # type: ignore[attr-defined]
                file.write(buffer[:count])
                left -= count
            os.fdatasync(file.fileno())
        self.upload(self.path[1:], self.spool)
        self._answer(b"")

    def do_GET(self) -> None:
        found = hashlib.sha256()
        for chunk in self.fetch(self.path[1:]):
            found.update(chunk)
        self._answer(found.hexdigest().encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to say."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    kind, endpoint, container, spool = sys.argv[1:]
    with HTTPServer((HOST, 0), partial(Handler, *SDKS[kind](endpoint, container), spool)) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
