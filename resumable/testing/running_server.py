"""A real upload server for people's tests: a process with a directory of its own, on a free port of this machine.

Invariants: the process ends with its test, and with the process that runs the tests, however that ends; nothing here
imports the server or pytest. See docs/embedding.md.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Thread
from typing import IO, Any, Final
from urllib.parse import urlsplit

from attrs import field, frozen

WAIT: Final = 30.0
"""Seconds for which something is waited for, unless the test says otherwise."""
_TUS: Final = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


@frozen
class ReportedEvent:
    """An event, as in docs/hooks.md. ``path``: the file with the upload's bytes. ``metadata``: decoded, as text."""

    kind: str
    id: str
    path: Path
    length: int | None = None
    offset: int = 0
    metadata: Mapping[str, str] = field(factory=dict)
    details: Mapping[str, object] = field(factory=dict)

    @property
    def name(self) -> str:
        """The file's name, as the client gave it; empty without one."""
        return self.metadata.get("filename") or self.metadata.get("name", "")


class RunningServer:
    """A server that runs. ``url``: where uploads are created. ``upload_dir``: its directory."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.upload_dir = directory / "uploads"
        self._log = directory / "server.log"
        self._process = process
        self._news = Condition()
        self._events: list[ReportedEvent] = []
        self._waited: set[int] = set()
        self._ended = False
        assert process.stdout is not None
        first = process.stdout.readline()
        if not first:
            process.wait()
            raise RuntimeError(f"the upload server did not start:\n{self.log}")
        self.url: str = json.loads(first)["url"]
        self._reader = Thread(target=self._read, args=(process.stdout,), name="upload-server", daemon=True)
        self._reader.start()

    @property
    def log(self) -> str:
        """What the server has logged, and what its hooks have printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def events(self) -> list[ReportedEvent]:
        """Those that have been reported up to now; an event follows the answer to the client."""
        with self._news:
            return list(self._events)

    @property
    def files(self) -> list[ReportedEvent]:
        """The finished uploads that have been reported, and are still there."""
        return [each for each in self.events if each.kind == "finished" and each.path.exists()]

    def wait_for(self, kind: str, upload: str = "", timeout: float = WAIT) -> ReportedEvent:
        """The next event of this kind that wasn't waited for yet; ``upload``: of the one with this id or URL only.

        Blocks; in a test with Deferreds: ``await deferToThread(server.wait_for, "finished")``. Raises TimeoutError.
        """
        wanted = upload.rstrip("/").rpartition("/")[2]
        with self._news:
            if self._news.wait_for(lambda: self._ended or self._next(kind, wanted) is not None, timeout):
                number = self._next(kind, wanted)
                if number is not None:
                    self._waited.add(number)
                    return self._events[number]
            known = ", ".join(f"{each.kind} {each.id}" for each in self._events) or "none"
            why = "the upload server has ended" if self._ended else f"not within {timeout:g} s"
        raise TimeoutError(f"no event {kind!r}: {why}; events: {known}; the log is\n{self.log}")

    def upload(self, data: bytes, url: str | None = None, **metadata: str) -> str:
        """Upload this in one request, ``filename="a.txt"`` and other metadata with it. The upload's URL.

        Raises RuntimeError for any other answer than 201.
        """
        parts = urlsplit(url or self.url)
        pairs = [f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in metadata.items()]
        headers = {**_TUS, "Upload-Length": str(len(data)), "Upload-Metadata": ",".join(pairs)}
        link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=WAIT)
        try:
            link.request("POST", parts.path, data, headers)
            answer = link.getresponse()
            body = answer.read().decode("utf-8", "replace")
        finally:
            link.close()
        if answer.status != 201:
            raise RuntimeError(f"the upload was answered {answer.status}: {body.strip()}")
        return answer.headers["Location"]

    def stop(self) -> None:
        """As a SIGTERM would; returns when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _next(self, kind: str, upload: str) -> int | None:
        """The event's number."""
        for number, each in enumerate(self._events):
            if each.kind == kind and number not in self._waited and upload in ("", each.id):
                return number
        return None

    def _read(self, output: IO[bytes]) -> None:
        for line in output:
            told = json.loads(line)
            event = ReportedEvent(**{**told, "path": self.upload_dir / told["id"]})
            self._tell(lambda event=event: self._events.append(event))  # type: ignore[misc]
        self._tell(self._end)

    def _end(self) -> None:
        self._ended = True

    def _tell(self, change: Callable[[], object]) -> None:
        with self._news:
            change()
            self._news.notify_all()


@contextmanager
def upload_server(**options: Any) -> Iterator[RunningServer]:
    """A server that runs within the ``with``; ``options`` as those of `resumable.embed.UploadServer`.

    Hooks named ``python:MODULE`` are found in the current directory too. Raises RuntimeError if it can't start.
    """
    given = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in options.items()}
    with tempfile.TemporaryDirectory(prefix="upload-server-") as name:
        directory = Path(name)
        with (directory / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "resumable.testing.server_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        with process:
            assert process.stdin is not None
            process.stdin.write(json.dumps({"upload_dir": str(directory / "uploads"), **given}).encode() + b"\n")
            process.stdin.flush()
            server = RunningServer(process, directory)
            try:
                yield server
            finally:
                server.stop()
