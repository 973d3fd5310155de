#!/usr/bin/env python3
"""Uploads a file, and continues after an interruption of the connection, this program or the server.

    python3 examples/upload.py big.bin
    python3 examples/upload.py big.bin --endpoint https://example.org/files/

It needs only Python. It stores the upload's URL in a small file next to the uploaded one until the upload is finished.
After any interruption run the same command again. It prints the URL at the end.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import random
import sys
import time
from pathlib import Path
from urllib.parse import urljoin, urlsplit

VERSION = {"Tus-Resumable": "1.0.0"}
# After these answers the request may succeed later; all other answers from 400 on are final.
PASSING = {408, 409, 423, 429, 500, 502, 503, 504, 507}


class Refused(Exception):
    """The server refused the request, and would refuse it again."""


class Gone(Exception):
    """The server does not have this upload (any more)."""


class Region:
    """A body for http.client: ``size`` bytes of a file from ``offset`` on. It prints the progress."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._file = path.open("rb")
        self._file.seek(offset)
        self._left = size
        self._at = offset
        self._total = path.stat().st_size

    def read(self, amount: int = 65536) -> bytes:
        data = self._file.read(min(amount, self._left))
        self._left -= len(data)
        self._at += len(data)
        if sys.stderr.isatty():
            print(f"\r{self._at * 100 // max(self._total, 1):3d} %", end="", file=sys.stderr)
        return data

    def close(self) -> None:
        self._file.close()


def ask(method: str, url: str, headers: dict[str, str], body: Region | None = None) -> http.client.HTTPResponse:
    """Send one request on its own connection. Raises OSError, HTTPException, Gone or Refused."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=60, blocksize=1 << 20)
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the server may answer early
            connection.request(method, parts.path or "/", body=body, headers={**VERSION, **headers})
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    finally:
        connection.close()
    if response.status in {404, 410}:
        raise Gone(f"{method} {url}: {response.status}")
    if response.status in PASSING:
        raise ConnectionError(f"{method}: {response.status} {response.reason}")
    if response.status >= 400:
        raise Refused(f"{method} {url}: {response.status} {text.strip()}")
    return response


def create(endpoint: str, path: Path, size: int) -> str:
    name = base64.b64encode(path.name.encode()).decode()
    headers = {"Upload-Length": str(size), "Upload-Metadata": f"filename {name}", "Content-Length": "0"}
    location = ask("POST", endpoint, headers).getheader("Location")
    if not location:
        raise Refused(f"{endpoint} answered without Location: is it a tus server?")
    return urljoin(endpoint, location)


def offset_of(url: str) -> int:
    return int(ask("HEAD", url, {}).getheader("Upload-Offset") or 0)


def send(url: str, path: Path, offset: int, size: int) -> int:
    """Send ``size`` bytes from ``offset`` on. Return the new offset."""
    region = Region(path, offset, size)
    headers = {
        "Upload-Offset": str(offset),
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(size),
    }
    try:
        return int(ask("PATCH", url, headers, region).getheader("Upload-Offset") or 0)
    finally:
        region.close()


def fingerprint(endpoint: str, path: Path) -> dict[str, object]:
    """Return the identity of a file: a changed file is another upload."""
    stat = path.stat()
    return {"endpoint": endpoint, "size": stat.st_size, "mtime": stat.st_mtime_ns}


def remembered(state: Path, mark: dict[str, object]) -> str | None:
    try:
        known = json.loads(state.read_text(encoding="utf-8"))
        return known["url"] if known["of"] == mark else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(state: Path, mark: dict[str, object], url: str) -> None:
    fresh = state.with_name(state.name + ".new")
    fresh.write_text(json.dumps({"of": mark, "url": url}), encoding="utf-8")
    os.replace(fresh, state)


def upload(endpoint: str, path: Path, state: Path, chunk: int, patience: float) -> str:
    """Send the file and return its URL when the server has acknowledged each byte. Raises Refused or OSError."""
    size, mark = path.stat().st_size, fingerprint(endpoint, path)
    url, known, attempt, heard = remembered(state, mark), -1, 0, time.monotonic()
    resumed = url is not None
    while True:
        try:
            if url is None:
                url = create(endpoint, path, size)
                remember(state, mark, url)
            offset = offset_of(url)
            while offset < size:
                if offset > known:
                    known, attempt, heard = offset, 0, time.monotonic()
                offset = send(url, path, offset, min(chunk or size, size - offset))
            state.unlink(missing_ok=True)
            return url
        except Gone as problem:
            if not resumed:
                raise Refused(str(problem)) from None
            url, known, resumed = None, -1, False
        except (OSError, http.client.HTTPException) as problem:
            if time.monotonic() - heard > patience:
                raise OSError(f"no progress for {patience:.0f} s: {problem}") from problem
            pause = random.uniform(0.5, 1) * min(2**attempt, 30)
            attempt += 1
            print(f"\n{problem}; trying again in {pause:.1f} s", file=sys.stderr)
            time.sleep(pause)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--endpoint", default="http://127.0.0.1:8080/files/", help="where uploads are created")
    parser.add_argument("--chunk-size", type=int, default=0, metavar="BYTES", help="largest request; 0 for no limit")
    parser.add_argument("--patience", type=float, default=600, metavar="SECONDS", help="give up without progress")
    parser.add_argument("--state", type=Path, help="file for the URL until the upload is finished [FILE.upload]")
    asked = parser.parse_args()
    state = asked.state or asked.file.with_name(asked.file.name + ".upload")
    try:
        print(upload(asked.endpoint, asked.file, state, asked.chunk_size, asked.patience))
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to continue", file=sys.stderr)
        return 130
    except (Refused, OSError) as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
