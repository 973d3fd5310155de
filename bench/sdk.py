"""A vendor's own SDK in a process of its own: ``python -m bench.sdk az|gs ENDPOINT CONTAINER SPOOL``.

Changes when an SDK is best used in another way. Invariant: it sends pieces of 8 MiB with the checksums that we send,
four at once where it can. A small server, whose port is the first line it prints: POST /OBJECT with a file's name sends
that file, PUT /OBJECT writes the body to the file SPOOL, syncs it and sends it, GET /OBJECT answers the SHA-256 of what
the store has.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Self

from bench import proc
from bench.load import HOST, Connection, LoadError, head_of
from bench.servers import ROOT

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


class Sdk:
    """The same from the outside. Its methods return seconds, and CPU seconds of its process."""

    def __init__(self, name: str, endpoint: str, container: str, scratch: Path) -> None:
        self._spool, self._log = scratch / "received", scratch / "sdk.log"
        command = [sys.executable, "-m", "bench.sdk", name, endpoint, container, str(self._spool)]
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=out, cwd=ROOT, env={**os.environ, "NO_PROXY": HOST}
            )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LoadError(f"the SDK did not start: {self._log.read_text(errors='replace')[-300:]}")
        self._connection = Connection(int(line), 300.0)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()

    def send(self, file: Path) -> tuple[float, float]:
        """Send a file that is there."""
        return self._timed(lambda: self._connection.ask("POST", "/sdk", {}, str(file).encode()).expect(200))

    def receive(self, view: memoryview, size: int) -> tuple[float, float]:
        """Send it what it has to write to a file first, as a server must that has no more than the SDK."""

        def sent() -> None:
            self._connection.send(head_of("PUT", "/received", {"Content-Length": str(size)}))
            self._connection.send_from(view, size)
            self._connection.answer("PUT").expect(200)

        took = self._timed(sent)
        self._spool.unlink()
        return took

    def digest(self, key: str) -> str:
        """The SHA-256 of what the store has."""
        return self._connection.ask("GET", f"/{key}", {}).expect(200).body.decode()

    def _timed(self, do: Callable[[], object]) -> tuple[float, float]:
        cpu, began = proc.cpu_seconds(self._process.pid), time.perf_counter()
        do()
        return time.perf_counter() - began, proc.cpu_seconds(self._process.pid) - cpu


def main() -> None:
    kind, endpoint, container, spool = sys.argv[1:]
    with HTTPServer((HOST, 0), partial(Handler, *SDKS[kind](endpoint, container), spool)) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
