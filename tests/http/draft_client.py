"""A client of the draft without sockets: bytes into the real routes and use cases, on their clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from resumable.http.draft import DraftSettings
from resumable.protocol.draft import Limits
from tests.http.visitor import Client, Reply
from tests.uploads.harness import Server

NEWEST = 10
PARTIAL = "application/partial-upload"
PROBLEMS = "https://iana.org/assignments/http-problem-types#"
MISMATCH, INCONSISTENT, COMPLETED = (
    PROBLEMS + name for name in ("mismatching-upload-offset", "inconsistent-upload-length", "completed-upload")
)


class Said:
    """What was answered to one request so far: informational responses, then perhaps the final one."""

    def __init__(self, said: bytes) -> None:
        self.interims: list[Reply] = []
        self.final: Reply | None = None
        while said:
            reply = Reply(said)
            if reply.status >= 200:
                self.final = reply
                return
            self.interims.append(reply)
            said = reply.body

    def of(self, status: int) -> list[Reply]:
        """The informational responses of that status."""
        return [each for each in self.interims if each.status == status]

    @property
    def named(self) -> str | None:
        """The id of the upload that a 104 named."""
        return next((upload_id(each) for each in self.of(104) if each.get("Location")), None)

    @property
    def progress(self) -> list[int]:
        return [int(offset) for each in self.of(104) if (offset := each.get("Upload-Offset")) is not None]

    @property
    def status(self) -> int:
        """0: there is no final answer yet."""
        return self.final.status if self.final is not None else 0

    def get(self, name: str) -> str | None:
        """The final answer's field."""
        assert self.final is not None, "not answered yet"
        return self.final.get(name)

    @property
    def problem(self) -> dict[str, Any]:
        assert self.final is not None and self.final.get("Content-Type") == "application/problem+json"
        document = json.loads(self.final.body)
        assert document["status"] == self.final.status and len(self.final.body) >= 256
        assert isinstance(document, dict)
        return document

    @property
    def state(self) -> tuple[int, str | None, str | None]:
        """Status, Upload-Complete and Upload-Offset."""
        return self.status, self.get("Upload-Complete"), self.get("Upload-Offset")


def upload_id(reply: Reply | Said) -> str:
    """From an absolute Location."""
    parts = urlsplit(reply.get("Location") or "")
    assert parts.scheme and parts.netloc, parts
    return parts.path.rpartition("/")[2]


def limits(reply: Reply | Said) -> dict[str, int]:
    """Upload-Limit; {} without one."""
    pairs = (member.strip().partition("=") for member in (reply.get("Upload-Limit") or "").split(",") if member)
    return {name: int(value) for name, _, value in pairs}


class Draft(Client):
    """One connection. ``version`` None: it says none. Fields are lines; a content brings its Content-Length along.

    Limits are those of the server; ``min_append`` and ``max_append`` come to them.
    """

    def __init__(
        self,
        server: Server,
        version: int | str | None = NEWEST,
        *,
        min_append: int | None = None,
        max_append: int | None = None,
        **options: Any,
    ) -> None:
        operator = server.context.limits
        limits = Limits(operator.max_size, min_append, max_append)
        spoken = DraftSettings(limits=limits, max_age=operator.expire_after)
        super().__init__(server, **{"draft": spoken, "max_size": operator.max_size, **options})
        self._lost = False
        server.bodies.append(self)  # `Server.bury` ends its connection, so that no request is left hanging
        self.version = version

    def lose(self) -> None:
        """End the connection as a network does."""
        if not self._lost:
            self._lost = True
            self.channel.connectionLost(Failure(ConnectionLost()))
            self.server.pump()

    def open(self, method: str, path: str, fields: Sequence[str], content: bytes = b"") -> None:
        """Begin a request, with as much of its content as is given here."""
        spoken = () if self.version is None else (f"Upload-Draft-Interop-Version: {self.version}",)
        framed = any(field.startswith(("Content-Length:", "Transfer-Encoding:")) for field in fields)
        sized = () if framed or method in ("HEAD", "GET", "DELETE", "OPTIONS") else (f"Content-Length: {len(content)}",)
        lines = [f"{method} {path} HTTP/1.1", "Host: up.example", *spoken, *fields, *sized]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + content)

    def heard(self) -> Said:
        """What was answered since the last call."""
        said = self.wire.value()
        self.wire.clear()
        return Said(said)

    def announced(self) -> Said:
        """What was answered since the last call to a request that has waited for its content for a moment."""
        self.server.advance(1.0)
        return self.heard()

    def tell(self, method: str, path: str, *fields: str, content: bytes = b"") -> Said:
        """One request; what was answered to it at once."""
        self.open(method, path, fields, content)
        return self.heard()

    def post(self, content: bytes, complete: str | None, *fields: str, method: str = "POST") -> Said:
        """A creation; ``complete``: the value of Upload-Complete."""
        said = () if complete is None else (f"Upload-Complete: {complete}",)
        return self.tell(method, "/files/", *said, *fields, content=content)

    def created(self, content: bytes = b"", *fields: str) -> str:
        """An unfinished upload with this content."""
        said = self.post(content, "?0", *fields)
        assert said.status == 201, said.final and said.final.body
        return upload_id(said)

    def patch(  # type: ignore[override]
        self, upload_id: str, offset: int | str | None, content: bytes, complete: str | None, *fields: str
    ) -> Said:
        """An append; None takes a field away, and fields of the same name win."""
        self.open("PATCH", f"/files/{upload_id}", appending(offset, complete, *fields), content)
        return self.heard()

    def head(self, upload_id: str, *fields: str) -> Said:
        return self.tell("HEAD", f"/files/{upload_id}", *fields)

    def delete(self, upload_id: str) -> Said:
        return self.tell("DELETE", f"/files/{upload_id}")

    def file(self, upload_id: str) -> bytes:
        """A finished upload's bytes, by a client of its own that speaks neither protocol."""
        said = Draft(self.server, None).tell("GET", f"/files/{upload_id}")
        assert said.status == 200 and said.final is not None, said.status
        return said.final.body

    def tus(self, method: str, upload_id: str, *fields: str, content: bytes = b"") -> Said:
        """A request of a tus client, on a connection of its own."""
        other = Draft(self.server, None)
        return other.tell(method, f"/files/{upload_id}", "Tus-Resumable: 1.0.0", *fields, content=content)


def appending(offset: int | str | None, complete: str | None, *fields: str) -> tuple[str, ...]:
    """The fields of an append."""
    said = {
        "Upload-Offset": None if offset is None else str(offset),
        "Upload-Complete": complete,
        "Content-Type": PARTIAL,
    }
    given = {field.partition(":")[0] for field in fields}
    return (*(f"{name}: {value}" for name, value in said.items() if value is not None and name not in given), *fields)
