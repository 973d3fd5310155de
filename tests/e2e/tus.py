"""A small tus 1.0 client for tests: one method for each verb, and every answer held against the general rules.

Invariant: an answer that breaks one of the rules in `check` never reaches a test. Source: tus 1.0.0; RFC 9457 for
problem+json.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from .daemon import BOUND, eventually
from .wire import Answer, Wire

OCTETS = "application/offset+octet-stream"

Fields = Mapping[str, str | None]
"""Header fields; None takes away one that is there by default."""


def pattern(size: int, seed: int = 0) -> bytes:
    """``size`` bytes that look random and are the same for the same seed."""
    return random.Random(seed).randbytes(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def checksum(algorithm: str, data: bytes) -> str:
    """An Upload-Checksum value for an algorithm that hashlib knows."""
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"


def metadata(**pairs: str) -> str:
    """An Upload-Metadata value; each value is base64 of its UTF-8."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())


def head_bytes(method: str, target: str, fields: Fields | None = None, host: str = "127.0.0.1") -> bytes:
    """A request's head with Host and Tus-Resumable, unless ``fields`` take them away."""
    all_fields = {"Host": host, "Tus-Resumable": "1.0.0", **(fields or {})}
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in all_fields.items() if v is not None)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def patch_head(target: str, offset: int, length: int | None, fields: Fields | None = None) -> bytes:
    """The head of a PATCH; ``length`` None makes it chunked."""
    framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    return head_bytes(
        "PATCH", target, {"Upload-Offset": str(offset), "Content-Type": OCTETS, **framing, **(fields or {})}
    )


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def last_chunk(trailers: Mapping[str, str] | None = None) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in (trailers or {}).items())
    return f"0\r\n{lines}\r\n".encode()


def check(method: str, answer: Answer) -> Answer:
    """Hold an answer of the tus tree against what is true for all of them."""
    if method != "OPTIONS":
        assert answer["tus-resumable"] == "1.0.0", answer
    assert answer.status < 500 or answer.status in (501, 503, 507), answer
    if answer.status >= 400 and method != "HEAD":
        assert not answer.body or len(answer.body) >= 256, "an error body of 1 to 255 bytes makes tusgo panic"
        if answer.body:
            assert answer.problem["status"] == answer.status
            assert answer.problem["title"] and answer.problem["type"]
            text = answer.body.decode()
            assert "Traceback" not in text and "/tmp" not in text and ".py" not in text, text
    return answer


class Tus:
    """A client that keeps one connection as long as the server does. Targets are paths."""

    def __init__(self, port: int, base: str = "/files/", timeout: float = BOUND) -> None:
        self.port, self.base, self.timeout = port, base, timeout
        self._wire: Wire | None = None

    def wire(self) -> Wire:
        """A connection of its own, for a test that goes on by hand."""
        return Wire(self.port, self.timeout)

    def ask(
        self,
        method: str,
        target: str | None = None,
        fields: Fields | None = None,
        body: bytes | Iterable[bytes] | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and read its answer; a ``body`` that is no bytes goes out chunked, with ``trailers``."""
        whole = isinstance(body, bytes)
        framing: dict[str, str] = {}
        if isinstance(body, bytes):
            framing["Content-Length"] = str(len(body))
        elif body is not None:
            framing["Transfer-Encoding"] = "chunked"
        elif method in ("POST", "PATCH", "PUT"):
            framing["Content-Length"] = "0"
        message = head_bytes(method, target or self.base, {**framing, **(fields or {})})
        if whole:
            message += body  # type: ignore[operator]
        elif body is not None:
            message += b"".join(map(chunk, body)) + last_chunk(trailers)  # type: ignore[arg-type]
        return check(method, self._exchange(method, message))

    def _exchange(self, method: str, message: bytes) -> Answer:
        if self._wire is None:
            self._wire = self.wire()
        self._wire.offer(message)
        try:
            answer = self._wire.answer(method)
        except (OSError, EOFError):
            self.close()
            raise
        if (answer.get("connection") or "").lower() == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def options(self, fields: Fields | None = None) -> Answer:
        return self.ask("OPTIONS", None, {"Tus-Resumable": None, **(fields or {})})

    def post(
        self, length: int | None = None, fields: Fields | None = None, body: bytes | Iterable[bytes] | None = None
    ) -> Answer:
        """A creation; with ``body`` it is creation-with-upload."""
        sized = {} if length is None else {"Upload-Length": str(length)}
        typed = {} if body is None else {"Content-Type": OCTETS}
        return self.ask("POST", None, {**sized, **typed, **(fields or {})}, body)

    def create(self, length: int | None = None, fields: Fields | None = None, body: bytes | None = None) -> str:
        """Create an upload (``length`` None: deferred) and give back its path."""
        deferred = {"Upload-Defer-Length": "1"} if length is None and "Upload-Concat" not in (fields or {}) else {}
        answer = self.post(length, {**deferred, **(fields or {})}, body)
        assert answer.status == 201, answer
        return self.path(answer)

    def concat(self, *parts: str, fields: Fields | None = None) -> str:
        """Create a final upload of these paths."""
        return self.create(None, {"Upload-Concat": "final;" + " ".join(parts), **(fields or {})})

    def partial(self, data: bytes) -> str:
        """A finished partial upload."""
        return self.create(len(data), {"Upload-Concat": "partial"}, data)

    @staticmethod
    def path(answer: Answer) -> str:
        """The Location's path; the Location itself must be absolute."""
        parts = urlsplit(answer["location"])
        assert parts.scheme in ("http", "https") and parts.netloc, answer
        return parts.path

    def head(self, target: str, fields: Fields | None = None) -> Answer:
        return self.ask("HEAD", target, fields)

    def patch(
        self,
        target: str,
        offset: int,
        body: bytes | Iterable[bytes] = b"",
        fields: Fields | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> Answer:
        return self.ask(
            "PATCH", target, {"Upload-Offset": str(offset), "Content-Type": OCTETS, **(fields or {})}, body, trailers
        )

    def delete(self, target: str) -> Answer:
        return self.ask("DELETE", target)

    def get(self, target: str) -> Answer:
        """A plain download, without Tus-Resumable."""
        with self.wire() as wire:
            return wire.send(head_bytes("GET", target, {"Tus-Resumable": None, "Connection": "close"})).answer()

    def offset(self, target: str) -> int:
        answer = self.head(target)
        assert answer.status == 200, answer
        return answer.offset

    def finish(self, target: str, data: bytes) -> None:
        """Send what is missing of ``data``, in one PATCH."""
        at = self.offset(target)
        answer = self.patch(target, at, data[at:])
        assert answer.status == 204 and answer.offset == len(data), answer

    def assembled(self, target: str) -> Answer:
        """The HEAD of an upload once it has an Upload-Offset; a final one has none until its bytes are there."""
        return eventually(lambda: answer if "upload-offset" in (answer := self.head(target)) else None)

    def content(self, target: str) -> bytes:
        """The bytes of a finished upload."""
        self.assembled(target)
        answer = self.get(target)
        assert answer.status == 200, answer
        return answer.body


@contextmanager
def holder(tus: Tus, path: str, offset: int, length: int | None, sent: bytes = b"") -> Iterator[Wire]:
    """A PATCH that has sent ``sent`` of its body, which the server has taken, and then nothing."""
    with tus.wire() as wire:
        wire.send(patch_head(path, offset, length, {"Expect": "100-continue"}))
        assert wire.interim() == 100  # so it has the hold
        if sent:
            wire.send(chunk(sent) if length is None else sent)
        yield wire
