"""A remote over a real socket, and what a test needs to look at it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from attrs import define
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from resumable.aio.threads import Pool
from resumable.httpclient.client import Http, HttpLimits
from resumable.remotes.interfaces import IJournal
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.plan import PartLimits
from resumable.remotes.s3.client import S3Client
from resumable.remotes.s3.credentials import ICredentials, StaticCredentials
from resumable.remotes.s3.endpoint import S3Place, resolve
from resumable.remotes.s3.remote import S3Remote
from resumable.remotes.s3.requests import S3Requests
from tests.remotes.s3_proxy import Proxy
from tests.remotes.s3_servers import ACCESS, BUCKET, SECRET, Server

MIB = 1 << 20


@define
class Rig:
    """``proxy`` stands before the server. `remote` makes another remote over the same journal, as a restart does."""

    server: Server
    proxy: Proxy
    client: S3Client
    pool: Pool
    journal: IJournal
    http: Http

    def remote(self, **more: Any) -> S3Remote:
        more.setdefault("dialect", self.server.dialect)
        return S3Remote(more.pop("client", self.client), self.journal, self.pool, time.time, **more)

    async def content(self, key: str) -> bytes:
        return await self.client.get_object(key, largest=256 * MIB)

    async def unfinished(self) -> list[str]:
        return [each.key for each in (await self.client.list_multipart_uploads()).uploads]


@asynccontextmanager
async def rig(
    server: Server,
    credentials: ICredentials | None = None,
    limits: HttpLimits | None = None,
    clock: Any = None,
    region: str | None = None,
    sign_bodies: bool = False,
) -> AsyncIterator[Rig]:
    """Everything started, and stopped at the end."""
    proxy = Proxy(reactor, urlsplit(server.url).port or 80)
    port = reactor.listenTCP(0, proxy, interface="127.0.0.1")
    pool = Pool(reactor, 2, "s3-test")
    pool.start()
    http = Http(reactor, limits or HttpLimits(idle_timeout=10.0), clock=clock)
    place = S3Place(BUCKET, region, f"http://127.0.0.1:{port.getHost().port}")
    keys = credentials or StaticCredentials(ACCESS, SECRET)
    client = S3Client(S3Requests(resolve(place, server.dialect), keys, http, pool, time.time, sign_bodies=sign_bodies))
    try:
        yield Rig(server, proxy, client, pool, MemoryJournal(), http)
    finally:
        await http.close()
        await pool.stop()
        await port.stopListening()
        await proxy.cut_off()


def fetched(url: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
    """What a GET of somebody without credentials is answered with. Blocks."""
    try:
        with urlopen(Request(url, headers=dict(headers))) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except HTTPError as error:
        return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()


def tiny(size: int = 64 << 10) -> PartLimits:
    """Parts that real stores would refuse."""
    return PartLimits(smallest_part=size)


def pending(deferred: Deferred[Any]) -> bool:
    return not deferred.called
