"""Stores that speak Google's JSON API on this machine, and what is bent straight where an emulator differs.

Ours (`gcs_fake`) is the strict one. The emulators prove that others read the protocol as we do; each `Bent` names what
they lack. Neither checks the alignment of chunks, who asks, or the checksum of the last request of a session.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from attrs import frozen
from twisted.internet import reactor

from resumable.httpclient.client import HttpAnswer, IHttp, StreamedAnswer
from tests.e2e import tools
from tests.remotes.gcs_fake import FakeApi, FakeStore
from tests.remotes.s3_servers import found, running
from tests.waiting import free_port

BUCKET = "the-bucket"


class Bent:
    """A client for an emulator that differs from the store; here it doesn't."""

    def __init__(self, http: IHttp, url: str) -> None:
        self.http = http
        self.url = url
        self.cancelled: set[str] = set()

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: Any, *, largest: int, patience: float = 1.0
    ) -> HttpAnswer:
        return await self.http.request(method, url, headers, body, largest=largest, patience=patience)

    async def stream(self, url: str, headers: Mapping[str, str]) -> StreamedAnswer:
        return await self.http.stream(url, headers)

    def close(self) -> Any:
        return self.http.close()


class BentEmulator(Bent):
    """gcp-storage-emulator knows no cancelling (501) and no conditions, and says that one byte is there before any.

    It lists all objects, in the order of their making, whatever ``startOffset`` and ``maxResults`` say. It closes
    each connection without having said that it would.
    """

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: Any, *, largest: int, patience: float = 1.0
    ) -> HttpAnswer:
        query = parse_qs(urlsplit(url).query)
        session = query.get("upload_id", [""])[0]
        self.http.close()  # not waited for: what is asked may be given up
        if session and (method == "DELETE" or session in self.cancelled):
            self.cancelled.add(session)
            return HttpAnswer(499, {}, b"")
        makes = re.fullmatch(r"bytes .*/\d+", headers.get("Content-Range", "")) or "multipart" in query.get(
            "uploadType", []
        )
        composed = re.search(r"/o/([^/?]+)/compose", url)
        if (makes or composed) and query.get("ifGenerationMatch") == ["0"]:
            key = composed[1] if composed else quote(query["name"][0], safe="")
            at = f"{self.url}/storage/v1/b/{BUCKET}/o/{key}"
            found = await self.http.request("GET", at, {}, None, largest=largest)
            if found.status == 200:
                return HttpAnswer(412, {}, b"")
            self.http.close()  # not waited for: what is asked may be given up
        answer = await super().request(method, url, headers, body, largest=largest, patience=patience)
        if answer.status == 308 and answer.headers.get("range") == "bytes=0-0":
            return HttpAnswer(308, {}, answer.body)
        if answer.status == 200 and "prefix" in query:
            items = sorted(json.loads(answer.body).get("items", ()), key=lambda each: each["name"])
            return HttpAnswer(200, answer.headers, json.dumps({"items": items}).encode())
        return answer


class BentFakeGcs(Bent):
    """fake-gcs-server finishes the object when it is asked for the progress, and cancels nothing."""

    def __init__(self, http: IHttp, url: str) -> None:
        super().__init__(http, url)
        self.kept: dict[str, Mapping[str, str]] = {}

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: Any, *, largest: int, patience: float = 1.0
    ) -> HttpAnswer:
        session = parse_qs(urlsplit(url).query).get("upload_id", [""])[0]
        if session and (method == "DELETE" or session in self.cancelled):
            self.cancelled.add(session)
            return HttpAnswer(499, {}, b"")
        if headers.get("Content-Range") == "bytes */*" and session in self.kept:
            return HttpAnswer(308, self.kept[session], b"")
        answer = await super().request(method, url, headers, body, largest=largest, patience=patience)
        if session and answer.status == 308 and answer.headers.get("range", "").startswith("bytes=0-"):
            self.kept[session] = answer.headers
        elif session and b'"size"' in answer.body:
            self.kept.pop(session, None)
        elif "location" in answer.headers:
            self.kept[parse_qs(urlsplit(answer.headers["location"]).query)["upload_id"][0]] = {}
        return answer


@frozen
class Server:
    """``store`` is ours, or None. ``conditions``: whether it knows them by itself."""

    name: str
    url: str
    bend: Callable[[IHttp, str], Bent] = Bent
    store: FakeStore | None = None


@contextmanager
def ours(directory: Path) -> Iterator[Server]:
    """In this process, in the reactor; needs nothing."""
    store = FakeStore(BUCKET)
    port = reactor.listenTCP(0, FakeApi(store).site(), interface="127.0.0.1")
    try:
        yield Server("ours", f"http://127.0.0.1:{port.getHost().port}", Bent, store)
    finally:
        port.stopListening()


@contextmanager
def emulator(directory: Path) -> Iterator[Server]:
    """gcp-storage-emulator, everything in memory, in threads: by itself it waits for one connection at a time."""
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed: pip install it")
    port = free_port()
    threaded = (
        "from http import server; server.HTTPServer = server.ThreadingHTTPServer\n"
        "from gcp_storage_emulator.__main__ import main; main()"
    )
    command = [sys.executable, "-c", threaded, "start", "--host", "127.0.0.1", "--port", str(port), "--in-memory"]
    with running(command, port):
        _make_bucket(port)
        yield Server("emulator", f"http://127.0.0.1:{port}", BentEmulator)


@contextmanager
def fake_gcs(directory: Path) -> Iterator[Server]:
    """fake-gcs-server, everything in memory."""
    port = free_port()
    binary = found("fake-gcs-server") or tools.install_go("github.com/fsouza/fake-gcs-server@v1.56.1")
    command = [binary, "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    with running(command, port):
        _make_bucket(port)
        yield Server("fake-gcs-server", f"http://127.0.0.1:{port}", BentFakeGcs)


#: For a fixture's params: these are processes of their own, ours is not. The second is built from its sources.
EMULATOR = pytest.param("emulator", marks=pytest.mark.process)
FAKE_GCS = pytest.param("fake-gcs-server", marks=[pytest.mark.process, pytest.mark.slow])
STARTS: dict[str, Callable[[Path], Any]] = {"ours": ours, "emulator": emulator, "fake-gcs-server": fake_gcs}


@contextmanager
def started(name: str, directory: Path) -> Iterator[Server]:
    """That server; the test is skipped where it isn't installed."""
    with STARTS[name](directory) as server:
        yield server


def _make_bucket(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = json.dumps({"name": BUCKET})
    connection.request("POST", "/storage/v1/b?project=test", body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    connection.close()
