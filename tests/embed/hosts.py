"""A program's own site for tests, with uploads in it; asked by a blocking client in a thread, as people's clients are.

Invariant: nothing that was started here outlives its test.
"""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource

from resumable.embed import UploadServer

HOST = "127.0.0.1"
TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = {"Content-Type": "application/offset+octet-stream"}


@frozen
class Said:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def asked(port: int, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Said:
    """The answer; blocks."""
    link = http.client.HTTPConnection(HOST, port, timeout=180)
    try:
        link.request(method, path, body, dict(headers))
        answer = link.getresponse()
        return Said(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        link.close()


@frozen
class Host:
    """A port of the loopback interface on which a site answers."""

    port: int

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Said:
        """The answer to one request on a connection of its own."""
        return await deferToThread(asked, self.port, method, path, headers or {}, body)

    async def upload(self, data: bytes, path: str = "/files/") -> Said:
        """The answer to one that creates an upload and brings all of it."""
        return await self.ask("POST", path, {**TUS, **OCTETS, "Upload-Length": str(len(data))}, data)


@asynccontextmanager
async def listening(site: Any) -> AsyncIterator[Host]:
    """The site's port, until it is closed."""
    port = reactor.listenTCP(0, site, interface=HOST)  # type: ignore[attr-defined]
    try:
        yield Host(port.getHost().port)
    finally:
        await port.stopListening()
        if hasattr(site, "close_connections"):
            await site.close_connections(1.0)


@asynccontextmanager
async def started(*servers: UploadServer) -> AsyncIterator[None]:
    """They run."""
    for each in servers:
        each.privilegedStartService()
        each.startService()
    try:
        yield
    finally:
        for each in servers:
            await each.stop()


def tree(server: UploadServer, *path: bytes) -> Resource:
    """The program's resources, with the server's at this path."""
    root = above = Resource()
    for each in path[:-1]:
        below = Resource()
        above.putChild(each, below)
        above = below
    above.putChild(path[-1], server.resource)
    return root
