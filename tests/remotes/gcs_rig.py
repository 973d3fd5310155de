"""A Google remote over a real socket, and what a test needs to look at it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from urllib.parse import urlsplit

from attrs import define
from twisted.internet import reactor
from twisted.internet.defer import succeed

from resumable.httpclient.client import Http, HttpLimits
from resumable.model import keys
from resumable.remotes.errors import NotThere
from resumable.remotes.gcs.credentials import Anonymous, ITokens
from resumable.remotes.gcs.gcs_spool import GcsSpoolStore
from resumable.remotes.gcs.records import GcsObjectOptions
from resumable.remotes.gcs.remote import GcsRemote
from resumable.remotes.gcs.requests import GcsPlace, GcsRequests
from resumable.remotes.gcs.store import GcsStore
from resumable.remotes.interfaces import IJournal
from resumable.remotes.journals import MemoryJournal
from tests.remotes.gcs_servers import BUCKET, Server
from tests.remotes.s3_proxy import Proxy

MIB = 1 << 20
QUANTUM = 256 << 10
OPERATIONS = [
    ("StartSession", rb"POST [^ ]*uploadType=resumable"),
    ("Compose", rb"POST [^ ]*/compose"),
    ("Batch", rb"POST /batch/"),
    ("Insert", rb"POST "),
    ("Ask", rb"(?is)PUT .*\r\ncontent-range: bytes \*/\*"),
    ("Finish", rb"(?is)PUT .*\r\ncontent-range: bytes [^/\r]*/\d"),
    ("Chunk", rb"PUT "),
    ("Cancel", rb"DELETE [^ ]*upload_id="),
    ("Delete", rb"DELETE "),
    ("List", rb"GET [^ ]*/o\?"),
    ("Read", rb"GET [^ ]*alt=media"),
    ("LookUp", rb"GET "),
]


@define
class Rig:
    """``proxy`` stands before the server. `remote` makes another remote over the same journal, as a restart does."""

    server: Server
    proxy: Proxy
    requests: GcsRequests
    journal: IJournal
    direct: GcsRequests

    def remote(self, **more: Any) -> GcsRemote:
        return GcsRemote(self.requests, self.journal, time.time, Random(1), **more)

    def store(self, prefix: str = "", *, part_size: int = QUANTUM, **options: Any) -> GcsSpoolStore:
        """The same place as a spool."""
        given = GcsObjectOptions(**options)
        store = GcsStore(self.requests, given, keys.parse(prefix=prefix), False, Random(1))
        prefix = f"{prefix}/" if prefix else ""
        return GcsSpoolStore(
            self.requests, store, given, time.time, Random(2), prefix=prefix, part_size=part_size,
            closing=lambda: succeed(None),
        )  # fmt: skip

    async def content(self, key: str) -> bytes | None:
        url = self.direct.place.object(key, [("alt", "media")])
        try:
            return (await self.direct.send("read", "GET", url, largest=256 * MIB)).body
        except NotThere:
            return None

    async def put(self, key: str, data: bytes) -> None:
        headers = {"Content-Type": "text/plain"}
        await self.direct.send("put", "POST", self.direct.place.upload("media", key), headers, data)


@asynccontextmanager
async def rig(
    server: Server, tokens: ITokens | None = None, limits: HttpLimits | None = None, clock: Any = None
) -> AsyncIterator[Rig]:
    """Everything started, and stopped at the end."""
    proxy = Proxy(reactor, urlsplit(server.url).port or 80, OPERATIONS)
    port = reactor.listenTCP(0, proxy, interface="127.0.0.1")
    http, other = Http(reactor, limits or HttpLimits(idle_timeout=10.0), clock=clock), Http(reactor)
    base = f"http://127.0.0.1:{port.getHost().port}"
    requests = GcsRequests(GcsPlace(BUCKET, base), tokens or Anonymous(), server.bend(http, server.url))
    direct = GcsRequests(GcsPlace(BUCKET, server.url), tokens or Anonymous(), other)
    try:
        yield Rig(server, proxy, requests, MemoryJournal(), direct)
    finally:
        await http.close()
        await other.close()
        await port.stopListening()
        await proxy.cut_off()
