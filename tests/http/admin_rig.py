"""The admin API over the real use cases, on their clock; every answer is held against the API's own description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from resumable.http.admin.api import Admin, AdminAuth, AdminServices, SocketAuth
from resumable.http.admin.openapi import description
from resumable.http.admin.overview import DeadEvents, Overview, OverviewSources, Readiness
from resumable.http.live import Live
from resumable.http.site import StreamingSite
from resumable.metrics.meters import RemoteLag
from resumable.replication.context import RemoteCounts
from resumable.spool import Budget
from resumable.uploads.operators import Census, Operators
from tests.hooks.outbox import MemoryOutbox
from tests.http.visitor import Reply
from tests.uploads.harness import Server

DOCUMENT = description()
ROUTES = Admin.app.url_map


class NoMetrics:
    """One figure, for nothing."""

    async def render(self) -> bytes:
        return b"x 1\n"


def tree(readiness: Any = None, dead: Any = None, auth: AdminAuth | None = None) -> Admin:
    """One that can't be asked about uploads."""
    services = AdminServices(NoMetrics(), readiness, None, None, dead)  # type: ignore[arg-type]
    return Admin(services, auth or SocketAuth())


def queue(**more: Any) -> Any:
    """A remote as it is looked at."""
    remote = SimpleNamespace(required=True)
    counts = RemoteCounts(parts=4, bytes=400)
    counts.failures["Unreachable"] = 2
    return SimpleNamespace(
        **{"remote": remote, "counts": counts, "queued": 7, "active": 2, "down": False, "pause": 0.0, **more}
    )


class Office:
    """Operators in front of a server, its remotes ``far`` and ``near``, and its hook ``hook``."""

    def __init__(self, server: Server, auth: AdminAuth | None = None) -> None:
        self.server = server
        self.outbox = MemoryOutbox(["hook"])
        self.queues = {"far": queue(), "near": queue(down=True, pause=3.5)}
        self.disk: Any = (1000, 500)
        self.readiness = Readiness({"drain": self._drain}, server.clock)
        operators = Operators(server.context, server.uploads, server.catalog.listing, self.queues)
        parts = OverviewSources(
            version="1.2.3",
            started_at=server.context.wall(),
            clock=server.clock,
            counts=server.context.counts,
            drain=server.context.drain,
            holds=server.context.holds,
            space=server.context.space,
            budget=Budget(),
            disk=self._disk,
            census=Census(server.catalog.listing, server.clock, server.context.wall),
            readiness=self.readiness,
            queues=self.queues,
            lags=SimpleNamespace(of=self._lag),  # type: ignore[arg-type]
        )
        dead = DeadEvents(self.outbox, ["hook"], lambda: None)
        live = Live(server.clock)
        services = AdminServices(NoMetrics(), self.readiness, operators, Overview(parts, operators), dead, live)
        self.admin = Admin(services, auth or SocketAuth())
        self.site = StreamingSite(self.admin.resource, reactor=Clock())

    async def _drain(self) -> str | None:
        return None if self.server.context.drain.since is None else "no upload may begin"

    async def _disk(self) -> tuple[int, int]:
        if isinstance(self.disk, Exception):
            raise self.disk
        answer: tuple[int, int] = self.disk
        return answer

    async def _lag(self, name: str) -> RemoteLag:
        return RemoteLag(700, 60.0)

    def ask(self, method: str, target: str, *fields: str) -> Reply:
        """The answer to one request, which is as described."""
        wire = StringTransport()
        channel = self.site.buildProtocol(None)
        channel.makeConnection(wire)
        lines = [f"{method} {target} HTTP/1.1", "Host: t", "Content-Length: 0", *fields, "", ""]
        channel.dataReceived("\r\n".join(lines).encode("latin-1"))
        self.server.pump()
        reply = Reply(wire.value())
        check(method, target, reply)
        return reply

    def told(self, method: str, target: str, *fields: str, status: int = 200) -> Any:
        """The document that is answered."""
        reply = self.ask(method, target, *fields)
        assert reply.status == status, reply.body
        return json.loads(reply.body)

    def refused(self, method: str, target: str, *fields: str) -> tuple[int, str]:
        """Status and words of a problem."""
        reply = self.ask(method, target, *fields)
        assert reply.get("Content-Type") == "application/problem+json", reply.body
        return reply.status, json.loads(reply.body)["detail"]

    def ids(self, query: str = "") -> list[str]:
        return [each["id"] for each in self.told("GET", f"/v1/uploads?{query}")["uploads"]]


def operation(method: str, path: str) -> Mapping[str, Any] | None:
    """What describes such a request; None: nothing does."""
    parts = path.split("/")
    for template, operations in DOCUMENT["paths"].items():
        names = template.split("/")
        if len(names) == len(parts) and all(
            name == part or name.startswith("{") for name, part in zip(names, parts, strict=True)
        ):
            found: Mapping[str, Any] | None = operations.get(method.lower()) if method.isupper() else None
            return found
    return None


def check(method: str, target: str, reply: Reply) -> None:
    """That the description has such an answer, and the answer that form."""
    described = operation(method, target.partition("?")[0])
    if described is None:
        assert reply.status in (404, 405), f"{method} {target} is answered {reply.status} and not described"
        return
    responses = described["responses"]
    assert str(reply.status) in responses, f"{method} {target}: {reply.status} is not described"
    content = responses[str(reply.status)].get("content")
    if content is None:
        assert not reply.body
        return
    media_type = (reply.get("Content-Type") or "").partition(";")[0]
    assert media_type in content
    if media_type.endswith("json"):
        schema = {**content[media_type]["schema"], "components": DOCUMENT["components"]}
        validator = Draft202012Validator(schema, format_checker=FormatChecker())
        validator.validate(json.loads(reply.body))
