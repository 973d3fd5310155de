"""A small client of the draft for tests: every interop version, over HTTP/1.1 and HTTP/2, request by request.

A request can be left half sent, cut off at any byte, and watched while it goes on: each informational response is kept
with its fields. Each request has a connection of its own. Invariant: nothing waits longer than its time-out, and no
informational response that breaks a rule of `check_interim` reaches a test. Source:
draft-ietf-httpbis-resumable-upload, and its versions before for the dialects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from .daemon import BOUND, eventually
from .http2 import Http2
from .wire import Answer, Wire

Fields = Mapping[str, str | None]
"""Header fields; None takes away one that is there by default."""
Way = Literal["http1", "http2", "tls2"]
"""HTTP/1.1; HTTP/2 with prior knowledge, without TLS; HTTP/2 over TLS."""

PROBLEMS = "https://iana.org/assignments/http-problem-types#"
CANCEL = 8
"""RST_STREAM's code of a client that has had enough (RFC 9113, section 7)."""


@dataclass(frozen=True)
class Dialect:
    """How one interop version is spoken. ``partial``: the type of an append's content, None: it has none.

    ``inverted``: Upload-Incomplete says the opposite of Upload-Complete. ``limit_age``: Upload-Limit's key for what is
    left of the upload's life, None: the version has no limits.
    """

    version: int
    inverted: bool
    partial: str | None
    limit_age: str | None

    def completeness(self, complete: bool) -> dict[str, str]:
        """The field that says whether a request's content ends the file."""
        if self.inverted:
            return {"Upload-Incomplete": "?0" if complete else "?1"}
        return {"Upload-Complete": "?1" if complete else "?0"}

    def complete(self, answer: Answer) -> bool | None:
        """What an answer says of completeness; None: nothing."""
        said = answer.get("upload-incomplete" if self.inverted else "upload-complete")
        return None if said is None else (said == "?1") != self.inverted


PARTIAL = "application/partial-upload"
DIALECTS = {
    each.version: each
    for each in (
        Dialect(3, True, None, None),
        Dialect(4, True, None, None),
        Dialect(5, False, None, None),
        Dialect(6, False, PARTIAL, "expires"),
        Dialect(7, False, PARTIAL, "max-age"),
        Dialect(8, False, PARTIAL, "max-age"),
        Dialect(9, False, PARTIAL, "max-age"),
        Dialect(10, False, PARTIAL, "max-age"),
    )
}
NEWEST = 10


@dataclass(frozen=True)
class Reply(Answer):
    """A final answer, with the informational responses before it."""

    heads: tuple[Answer, ...] = ()

    @property
    def resumption(self) -> str | None:
        """The path of the upload that a 104 named; None: none did."""
        return next((path_of(each) for each in self.heads if each.status == 104 and "location" in each), None)

    @property
    def progress(self) -> list[int]:
        """The offsets of the 104s."""
        return [each.offset for each in self.heads if each.status == 104 and "upload-offset" in each]


def path_of(answer: Answer) -> str:
    """The Location's path; the Location itself must be absolute."""
    parts = urlsplit(answer["location"])
    assert parts.scheme in ("http", "https") and parts.netloc, answer
    return parts.path


def limits(answer: Answer) -> dict[str, int]:
    """Upload-Limit, a dictionary of integers (RFC 9651)."""
    pairs = (member.strip().partition("=") for member in answer["upload-limit"].split(","))
    return {name: int(value) for name, _, value in pairs}


class Transfer(ABC):
    """One request under way, on a connection of its own."""

    heads: list[Answer]
    """The informational responses so far."""

    @abstractmethod
    def send(self, data: bytes, end: bool = False) -> None:
        """Send of the content; ``end``: it is all. What the server has stopped listening to is dropped."""

    @abstractmethod
    def _hear(self) -> bool:
        """Wait for one more head; False when it was the final one, or none will come."""

    @abstractmethod
    def answer(self) -> Reply:
        """The final answer. EOFError when the server ends the request without one."""

    @abstractmethod
    def drop(self) -> None:
        """End it as a client that calls it off: HTTP/1.1 closes the connection, HTTP/2 resets the stream."""

    @abstractmethod
    def cut(self) -> None:
        """End the connection, as a network does: all that was sent arrives."""

    @abstractmethod
    def hung_up(self) -> bool:
        """Wait for the end: True when the server has ended this request without a final answer."""

    def interim(self, status: int, field: str | None = None) -> Answer:
        """The first informational response of that status, with that field."""
        seen = 0
        while True:
            for each in self.heads[seen:]:
                if each.status == status and (field is None or field in each):
                    return each
            seen = len(self.heads)
            assert self._hear(), f"no {status} came, but {self.heads} and {self.answer()}"

    def resumption(self) -> str:
        """Wait for the 104 that names the upload; its path."""
        return path_of(self.interim(104, "location"))

    @property
    def named(self) -> str | None:
        """The path of the upload that a 104 has named so far."""
        return next((path_of(each) for each in self.heads if each.status == 104 and "location" in each), None)

    def when_named(self) -> str | None:
        """Wait for that; None: the final answer came without. EOFError when none of them comes."""
        while self.named is None and self._hear():
            pass
        return self.named

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *error: object) -> None:
        self.cut()


class Transfer1(Transfer):
    """HTTP/1.1. ``chunked``: how the content goes out."""

    def __init__(self, port: int, head: bytes, chunked: bool, timeout: float = BOUND) -> None:
        self.wire = Wire(port, timeout)
        self.heads = []
        self._chunked = chunked
        self._last: tuple[int, tuple[tuple[str, str], ...]] | None = None
        self._method = head.partition(b" ")[0].decode()
        try:
            self.wire.send(head)
        except BaseException:
            self.wire.close()
            raise

    def send(self, data: bytes, end: bool = False) -> None:
        if self._chunked:
            data = (b"%x\r\n%s\r\n" % (len(data), data) if data else b"") + (b"0\r\n\r\n" if end else b"")
        self.wire.offer(data)

    def _hear(self) -> bool:
        if self._last is None:
            try:
                status, fields = self.wire._head()
            except ConnectionResetError as error:
                raise EOFError("reset") from error
            if status < 200:
                self.heads.append(Answer(status, fields, b""))
                return True
            self._last = status, fields
        return False

    def answer(self) -> Reply:
        while self._hear():
            pass
        assert self._last is not None
        status, fields = self._last
        body = self.wire._body(self._method, status, dict(fields))
        return Reply(status, fields, body, tuple(each.status for each in self.heads), tuple(self.heads))

    def drop(self) -> None:
        self.wire.close()

    def cut(self) -> None:
        with suppress(OSError):
            self.wire.half_close()
        self.wire.close()

    def hung_up(self) -> bool:
        try:
            self.answer()
        except EOFError:
            return True
        return False


class Transfer2(Transfer):
    """HTTP/2: the only stream of its connection. A ``chunked`` content has no announced length."""

    def __init__(
        self,
        port: int,
        method: str,
        path: str,
        fields: Mapping[str, str],
        end: bool,
        tls: bool,
        timeout: float = BOUND,
    ) -> None:
        self.link = Http2(port, tls=tls, timeout=timeout)
        try:
            self.number = self.link.begin(method, path, fields, end=end)
        except BaseException:
            self.link.close()
            raise
        self.heads = self.link.interims.setdefault(self.number, [])

    def send(self, data: bytes, end: bool = False) -> None:
        if self._over:
            return
        with suppress(BrokenPipeError, ConnectionResetError):
            self.link.send(self.number, data, end=end)

    @property
    def _over(self) -> bool:
        return self.number in self.link.ended or self.number in self.link.resets

    def _hear(self) -> bool:
        known = len(self.heads)
        while len(self.heads) == known:
            if self._over or self.number in self.link.heads:
                return False
            self.link._hear()
        return True

    def answer(self) -> Reply:
        while not self._over:
            try:
                self.link._hear()
            except ConnectionError as error:
                raise EOFError("closed") from error
        if self.number not in self.link.ended:
            raise EOFError(f"reset with {self.link.resets[self.number]}")
        (_, status), *fields = self.link.heads[self.number]
        seen = tuple(self.heads)
        return Reply(
            int(status), tuple(fields), self.link.bodies[self.number], tuple(each.status for each in seen), seen
        )

    def drop(self) -> None:
        if not self._over:
            self.link.reset(self.number)
        self.close()

    def close(self) -> None:
        self.link.close()

    cut = close

    def hung_up(self) -> bool:
        while not self._over:
            self.link._hear()  # the connection stays: only the stream may end
        return self.number in self.link.resets


class Draft:
    """A client of the server at ``port``. Targets are paths. ``version`` None: it says none, and speaks the newest."""

    def __init__(
        self,
        port: int,
        version: int | None = NEWEST,
        way: Way = "http1",
        base: str = "/files/",
        timeout: float = BOUND,
    ) -> None:
        self.port, self.version, self.way, self.base, self.timeout = port, version, way, base, timeout
        self.dialect = DIALECTS.get(NEWEST if version is None else version, DIALECTS[NEWEST])

    def begin(
        self,
        method: str,
        target: str | None = None,
        fields: Fields | None = None,
        length: int | None = 0,
        *,
        bodiless: bool = False,
    ) -> Transfer:
        """Send the head of a request with content of ``length`` bytes, None: as it comes."""
        spoken = {} if self.version is None else {"Upload-Draft-Interop-Version": str(self.version)}
        sized = {} if bodiless or length is None else {"Content-Length": str(length)}
        said = {"Host": "127.0.0.1", **spoken, **sized, **(fields or {})}
        given = {name: value for name, value in said.items() if value is not None}
        if self.way != "http1":
            return Transfer2(self.port, method, target or self.base, given, bodiless, self.way == "tls2", self.timeout)
        chunked = length is None and not bodiless
        if chunked:
            given["Transfer-Encoding"] = "chunked"
        lines = [f"{method} {target or self.base} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
        return Transfer1(self.port, "\r\n".join([*lines, "", ""]).encode("latin-1"), chunked, self.timeout)

    def ask(
        self,
        method: str,
        target: str | None = None,
        fields: Fields | None = None,
        content: bytes | None = None,
        *,
        chunked: bool = False,
    ) -> Reply:
        """One request, whole; with ``Expect: 100-continue`` the content waits for the 100."""
        length = None if chunked else len(content or b"")
        with self.begin(method, target, fields, length, bodiless=content is None) as transfer:
            if content is not None:
                if (fields or {}).get("Expect"):
                    transfer.interim(100)
                transfer.send(content, end=True)
            reply = self.check(transfer.answer())
        assert method in ("GET", "OPTIONS") or "tus-resumable" not in reply, reply
        return reply

    def check(self, reply: Reply) -> Reply:
        """Hold an answer against what is true for all of them."""
        for each in reply.heads:
            self.check_interim(each)
        named = {each["location"] for each in reply.heads if "location" in each}
        assert len(named) <= 1, "one request has one upload"
        assert reply.progress == sorted(reply.progress), "an offset decreased"
        if reply.status >= 400 and reply.body:
            assert len(reply.body) >= 256 and reply.problem["status"] == reply.status, reply
        return reply

    def check_interim(self, head: Answer) -> None:
        """Hold an informational response against the rules for all of them."""
        assert head.status in (100, 104), head
        if head.status == 104:
            assert head.get("upload-draft-interop-version") == str(self.version), head
            assert "location" in head or "upload-offset" in head, head
            assert "content-length" not in head and "transfer-encoding" not in head, head

    # the protocol

    def creation(self, complete: bool = True, length: int | None = None, fields: Fields | None = None) -> Fields:
        """The fields of a creation. ``length``: of the whole file, None: it isn't told."""
        told = {} if length is None else {"Upload-Length": str(length)}
        return {**self.dialect.completeness(complete), **told, **(fields or {})}

    def appending(self, offset: int, complete: bool = True, fields: Fields | None = None) -> Fields:
        """The fields of an append."""
        kind = {} if self.dialect.partial is None else {"Content-Type": self.dialect.partial}
        return {**self.dialect.completeness(complete), "Upload-Offset": str(offset), **kind, **(fields or {})}

    def create(
        self,
        content: bytes = b"",
        complete: bool = True,
        length: int | None = None,
        fields: Fields | None = None,
        *,
        chunked: bool = False,
        method: str = "POST",
    ) -> Reply:
        return self.ask(method, None, self.creation(complete, length, fields), content, chunked=chunked)

    def created(self, content: bytes = b"", length: int | None = None, fields: Fields | None = None) -> str:
        """An unfinished upload with ``content``; its path."""
        reply = self.create(content, False, length, fields)
        assert reply.status == 201, reply
        return path_of(reply)

    def append(
        self,
        target: str,
        offset: int,
        content: bytes = b"",
        complete: bool = True,
        fields: Fields | None = None,
        *,
        chunked: bool = False,
    ) -> Reply:
        return self.ask("PATCH", target, self.appending(offset, complete, fields), content, chunked=chunked)

    def head(self, target: str, fields: Fields | None = None) -> Reply:
        return self.ask("HEAD", target, fields)

    def offset(self, target: str) -> int:
        reply = self.head(target)
        assert reply.status == 204, reply
        return reply.offset

    def cancel(self, target: str) -> Reply:
        return self.ask("DELETE", target)

    def options(self, target: str | None = None) -> Reply:
        return self.ask("OPTIONS", target)

    def get(self, target: str) -> Reply:
        """The finished file."""
        return self.ask("GET", target, {"Upload-Draft-Interop-Version": None})

    def resume(self, target: str, data: bytes) -> Reply:
        """Ask how far it is, and send what is missing of ``data``."""
        at = self.offset(target)
        return self.append(target, at, data[at:])

    def content(self, target: str) -> bytes:
        reply = eventually(lambda: found if (found := self.get(target)).status != 404 else None, BOUND)
        assert reply.status == 200, reply
        return reply.body
