"""The core without I/O: a server of both protocols in memory, whose requests go wrong by a script, and a runner."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from resumable.client.client_options import ClientOptions
from resumable.client.client_transfer import ClientTransfer, Surroundings
from resumable.client.effects import TAIL, CutShort, Effect, Exchange, HttpReply, Lost, Pause, Steps, Together, Work
from resumable.client.events import TransferEvent
from resumable.client.putting import put_steps
from resumable.client.sources import BytesSource, SendSource
from resumable.client.state_file import StateFile

BASE = "http://server/files/"


@frozen
class Fault:
    """What goes wrong with one request. ``arrives``: bytes of its content that come, None: all; ``reply``: the answer
    in place of the server's, None: there is none; ``done``: the server does it all the same."""

    arrives: int | None = 0
    reply: HttpReply | None = None
    done: bool = False
    cut: float | None = None


LOST_BEFORE = Fault()
LOST_ANSWER = Fault(arrives=None, done=True)


def cut_after(count: int) -> Fault:
    """The connection ends after so many bytes of the content."""
    return Fault(arrives=count, done=True)


def answer(status: int, *fields: tuple[str, str], body: bytes = b"") -> Fault:
    """Something on the way answers, and the server isn't reached."""
    return Fault(reply=HttpReply(status, fields, body))


@define
class ModelUpload:
    """An upload at the model server."""

    length: int | None
    metadata: str | None
    data: bytearray = field(factory=bytearray)
    complete: bool = False
    partial: bool = False
    announced: bytes | None = None


@define
class World:
    """A server, its clock, and what its client tells. ``speaks``: protocols; ``most``: bytes that something before it
    lets through in a request; ``digests``, ``concatenates``, ``checks``: what it can do."""

    state: StateFile
    speaks: tuple[str, ...] = ("tus", "draft")
    most: int | None = None
    digests: bool = True
    status: bool = False
    concatenates: bool = True
    checks: str = "sha1,crc32c,sha256"
    limit: str | None = None
    faults: Iterator[Fault | None] = field(factory=lambda: iter(()))
    now: float = 0.0
    uploads: dict[str, ModelUpload] = field(factory=dict)
    requests: list[Exchange] = field(factory=list)
    events: list[TransferEvent] = field(factory=list)
    pauses: list[float] = field(factory=list)
    before: Callable[[Exchange], None] = lambda exchange: None

    def fails(self, *faults: Fault | None) -> None:
        """Let the next requests go wrong so; None: not."""
        self.faults = iter(faults)

    def told(self, *kinds: str) -> list[TransferEvent]:
        """The events of these kinds."""
        return [event for event in self.events if event.name in kinds]

    def methods(self) -> list[str]:
        """Those of all requests, in order."""
        return [exchange.method for exchange in self.requests]

    # -- the client

    def transfer(self, options: ClientOptions | None = None, name: str = "it", address: str = BASE) -> ClientTransfer:
        """A transfer in this world."""
        around = Surroundings(wall=lambda: self.now, now=lambda: self.now, random=lambda: 1.0)
        return ClientTransfer(name, address, options or ClientOptions(), self.state, self.events.append, around)

    def put(self, source: SendSource | bytes, options: ClientOptions | None = None, fresh: bool = False) -> Any:
        """Send it, to the end."""
        kept = BytesSource(source) if isinstance(source, bytes) else source
        return self.run(put_steps(self.transfer(options), kept, {"filename": "a.bin"}, fresh))

    def run(self, steps: Steps[Any]) -> Any:
        """The result of the steps."""
        return self._all([steps])[0]

    def _all(self, steps: Sequence[Steps[Any]]) -> list[Any]:
        """The results of all, each of which does one thing in turn."""
        results: dict[int, Any] = {}
        inputs: dict[int, tuple[Any, Exception | None]] = {number: (None, None) for number in range(len(steps))}
        try:
            while inputs:
                for number, (value, error) in list(inputs.items()):
                    try:
                        one = steps[number]
                        effect = one.send(value) if error is None else one.throw(error)
                    except StopIteration as end:
                        results[number] = end.value
                        del inputs[number]
                        continue
                    try:
                        inputs[number] = self._done(effect), None
                    except Exception as raised:
                        inputs[number] = None, raised
        finally:
            for one in steps:
                one.close()
        return [results[number] for number in range(len(steps))]

    def _done(self, effect: Effect) -> Any:
        if isinstance(effect, Exchange):
            return self._exchange(effect)
        if isinstance(effect, Pause):
            self.pauses.append(effect.seconds)
            self.now += effect.seconds
            return None
        if isinstance(effect, Work):
            return effect.call()
        assert isinstance(effect, Together)
        return self._all(effect.steps)

    def _exchange(self, exchange: Exchange) -> HttpReply:
        self.before(exchange)
        self.requests.append(exchange)
        self.now += 0.01
        size = exchange.body.size if exchange.body else 0
        if self.most is not None and size > self.most:
            return HttpReply(413, [("content-type", "text/html")], b"<h1>Request Entity Too Large</h1>")
        fault = next(self.faults, None)
        if fault is None:
            return self._served(exchange, None)
        if fault.done or fault.arrives:
            self._served(exchange, fault.arrives)
        if fault.cut is not None:
            raise CutShort(fault.cut)
        if fault.reply is None:
            raise Lost("the network is away")
        return fault.reply

    # -- the server

    def _served(self, exchange: Exchange, arrives: int | None) -> HttpReply:
        fields = {name.lower(): value for name, value in exchange.fields}
        protocol = "tus" if "tus-resumable" in fields else "draft" if "upload-draft-interop-version" in fields else ""
        if protocol not in self.speaks and protocol:
            return HttpReply(404)
        said = [("tus-resumable", "1.0.0")] if protocol == "tus" else [("upload-draft-interop-version", "10")]
        if exchange.url.endswith("/status"):
            return self._status(exchange.url.removesuffix("/status"))
        if exchange.method == "OPTIONS":
            extensions = "creation,checksum" + (",concatenation" if self.concatenates else "")
            wanted = [("want-repr-digest", "sha-256=10, sha-512=9")] if self.digests else []
            return HttpReply(
                204, [*said, ("tus-extension", extensions), ("tus-checksum-algorithm", self.checks), *wanted]
            )
        if exchange.method == "POST":
            return self._create(fields, said)
        upload = self.uploads.get(exchange.url)
        if upload is None:
            return HttpReply(404, said)
        if exchange.method == "DELETE":
            del self.uploads[exchange.url]
            return HttpReply(204, said)
        if exchange.method == "PATCH":
            return self._append(exchange, fields, upload, said, arrives)
        assert exchange.method == "HEAD"
        told = self._digest(upload) if upload.complete and self.digests else []
        length = [] if upload.length is None else [("upload-length", str(upload.length))]
        return HttpReply(200, [*said, *self._offset(upload, protocol), *length, *told])

    def _create(self, fields: dict[str, str], said: list[tuple[str, str]]) -> HttpReply:
        concat = fields.get("upload-concat", "")
        length = int(fields["upload-length"]) if "upload-length" in fields else None
        upload = ModelUpload(length, fields.get("upload-metadata"), partial=concat == "partial")
        if concat.startswith("final;"):
            parts = [self.uploads[url] for url in concat.removeprefix("final;").split()]
            assert all(part.complete and part.partial for part in parts)
            upload.data += b"".join(part.data for part in parts)
            upload.complete = True
        upload.complete = upload.complete or (length == 0 and "tus-resumable" in fields)
        url = f"{BASE}{len(self.uploads) + len(self.requests)}"
        self.uploads[url] = upload
        limit = [("upload-limit", self.limit)] if self.limit else []
        return HttpReply(201, [*said, ("location", url), *limit])

    def _append(
        self,
        exchange: Exchange,
        fields: dict[str, str],
        upload: ModelUpload,
        said: list[tuple[str, str]],
        arrives: int | None,
    ) -> HttpReply:
        body = exchange.body
        assert body is not None
        if int(fields["upload-offset"]) != len(upload.data) or upload.complete:
            return HttpReply(409, said)
        if "upload-length" in fields:
            upload.length = int(fields["upload-length"])
        content = body.source.read(body.offset, body.size)
        assert len(content) == body.size
        if body.before_last is not None:
            try:
                body.before_last()
            except Exception:
                upload.data += content[: max(0, body.size - TAIL)]
                raise
        kept = content if arrives is None else content[:arrives]
        if "upload-checksum" in fields:
            algorithm, value = fields["upload-checksum"].split()
            if arrives is not None and arrives < body.size:
                return HttpReply(460, said)
            if algorithm in ("sha1", "sha256"):
                assert b64decode(value) == hashlib.new(algorithm, content).digest()
        upload.data += kept
        if exchange.moved is not None:
            exchange.moved(len(kept))
        whole = len(kept) == len(content)
        if "tus-resumable" in fields:
            upload.complete = len(upload.data) == upload.length
        else:
            upload.complete = whole and fields["upload-complete"] == "?1"
        announced = fields.get("repr-digest")
        if self.digests and upload.complete and announced not in (None, self._digest(upload)[0][1]):
            upload.complete = False
            if "tus-resumable" in fields:
                del upload.data[-1]
                return HttpReply(460, said)
            kind = b'{"type": "https://iana.org/assignments/http-problem-types#digest-mismatching-values"}'
            return HttpReply(400, said, kind)
        return HttpReply(204, [*said, *self._offset(upload, "tus" if "tus-resumable" in fields else "draft")])

    @staticmethod
    def _offset(upload: ModelUpload, protocol: str) -> list[tuple[str, str]]:
        complete = [("upload-complete", "?1" if upload.complete else "?0")] if protocol == "draft" else []
        return [("upload-offset", str(len(upload.data))), *complete]

    @staticmethod
    def _digest(upload: ModelUpload) -> list[tuple[str, str]]:
        return [("repr-digest", f"sha-256=:{b64encode(hashlib.sha256(upload.data).digest()).decode()}:")]

    def _status(self, url: str) -> HttpReply:
        upload = self.uploads.get(url)
        if not self.status or upload is None:
            return HttpReply(404)
        replica = {"required": True, "state": "open", "sent": 1, "confirmed": 1, "trouble": None}
        state = {"state": "stored" if upload.complete else "uploading", "length": upload.length, "digest": None}
        body = {**state, "received": len(upload.data), "durable": len(upload.data), "replicas": [replica]}
        return HttpReply(200, [("content-type", "application/json")], json.dumps(body).encode())


def new_world(directory: Path, **more: Any) -> World:
    """A world whose state file is in this directory."""
    return World(StateFile(directory / "uploads.json", now=lambda: 1.0), **more)
