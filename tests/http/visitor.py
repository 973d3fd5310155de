"""One visitor of the whole resource tree: bytes in, an answer out, without sockets or storage."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from resumable.http.admin.overview import Readiness
from resumable.http.channel import StreamingChannel
from resumable.http.cors import Cors, CrossOrigin
from resumable.http.download import Downloads, Remotely, Ways
from resumable.http.live import Live
from resumable.http.origin import Origin
from resumable.http.page.upload_page import UploadPage
from resumable.http.site import Root, StreamingSite
from resumable.http.tus import TusRoutes
from resumable.model.upload import Upload
from resumable.model.values import networks
from tests.uploads.harness import Server
from tests.uploads.machine import Machine

UPLOAD = Upload(id="0" * 32, created_at=0, touched_at=0, length=5)


class Nothing:
    """Uploads that can be created and hold nothing."""

    algorithms = ("sha1",)

    def expires_at(self, upload: Upload) -> None:
        return None

    def create(self, creation: Any, body: Any, by: Any, hooks: Any) -> Deferred[Upload]:
        return succeed(UPLOAD)


class Reply:
    def __init__(self, said: bytes) -> None:
        head, _, self.body = said.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.fields = [tuple(line.split(": ", 1)) for line in lines]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The one field of that name, if any."""
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None


def connect(
    uploads: Any = None,
    *,
    peer: IAddress | None = None,
    origins: Sequence[str] = ("*",),
    cors: CrossOrigin | None = None,
    absolute: bool = True,
    public_url: str | None = None,
    trusted: Sequence[str] = (),
    clock: Clock | None = None,
    download: bool = True,
    remotely: Remotely = Remotely.PROXY,
    inline: bool = False,
    base_path: str = "/files/",
    page: UploadPage | None = None,
    **options: Any,
) -> tuple[StreamingChannel, StringTransport]:
    """A connection to the whole tree; ``options`` are those of the resource."""
    uploads, clock = uploads or Nothing(), clock or Clock()
    tus = TusRoutes(
        uploads,
        origin=Origin(base_path, public_url, networks(trusted), absolute),
        cors=Cors(cors or CrossOrigin(tuple(origins))),
        base_path=base_path,
        downloads=Downloads(uploads, Ways(remotely, 60.0, inline)) if download else None,
        live=Live(clock),
        **{"max_size": None, **options},
    )
    root = Root(tus, base_path, Readiness({}, clock), page)
    site = StreamingSite(root, reactor=clock, refusal_fields=tus.refusal_fields)
    wire = StringTransport(peerAddress=peer or IPv4Address("TCP", "192.0.2.1", 5))
    channel = site.buildProtocol(None)
    channel.makeConnection(wire)
    return channel, wire


def request(*lines: str, method: str = "POST", path: str = "/files/", version: str = "1.1", tus: bool = True) -> bytes:
    """A request's head: a creation of five bytes unless said otherwise. ``tus`` False: the lines are all of it."""
    head = [f"{method} {path} HTTP/{version}", *(["Tus-Resumable: 1.0.0"] if tus else [])]
    head += ["Upload-Length: 5", "Content-Length: 0"] if method == "POST" and tus else []
    return "\r\n".join([*head, *lines, "", ""]).encode("latin-1")


def ask(
    *lines: str,
    method: str = "POST",
    path: str = "/files/",
    version: str = "1.1",
    tus: bool = True,
    uploads: Any = None,
    **options: Any,
) -> Reply:
    """The answer to one request; ``options`` as for `connect`."""
    channel, wire = connect(uploads, **options)
    channel.dataReceived(request(*lines, method=method, path=path, version=version, tus=tus))
    return Reply(wire.value())


class Client:
    """One connection to the real use cases, on their clock."""

    def __init__(self, server: Server, **options: Any) -> None:
        self.server = server
        self.channel, self.wire = connect(server.uploads, clock=server.clock, **options)

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)
        self.server.pump()

    def begin(self, method: str, path: str, *fields: str, body: bytes = b"", tus: bool = True) -> None:
        """Send a request, with as much of its body as is given here."""
        lines = [f"{method} {path} HTTP/1.1", "Host: up.example", *(["Tus-Resumable: 1.0.0"] if tus else []), *fields]
        if not any(field.startswith("Content-Length") for field in fields) and (body or method == "POST"):
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def reply(self) -> Reply | None:
        """What was answered since the last call; None: nothing yet."""
        said = self.wire.value()
        self.wire.clear()
        return Reply(said) if said else None

    def ask(self, method: str, path: str, *fields: str, body: bytes = b"", tus: bool = True) -> Reply:
        self.begin(method, path, *fields, body=body, tus=tus)
        reply = self.reply()
        assert reply is not None
        return reply

    def patch(self, upload_id: str, offset: int, body: bytes, *fields: str) -> None:
        kind = "Content-Type: application/offset+octet-stream"
        length = f"Content-Length: {len(body)}"
        given = fields if any(field.startswith("Content-Length") for field in fields) else (*fields, length)
        self.begin("PATCH", f"/files/{upload_id}", kind, f"Upload-Offset: {offset}", *given, body=body)


def created(reply: Reply | None) -> str:
    assert reply is not None
    return (reply.get("Location") or "").rpartition("/")[2]


def new(client: Client, length: int = 10, *fields: str) -> str:
    return created(client.ask("POST", "/files/", f"Upload-Length: {length}", *fields))


@contextmanager
def serving(**options: Any) -> Iterator[Server]:
    """A server of its own."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "run"
        directory.mkdir()
        server = Server(Machine(directory), **options)
        yield server.start()
        server.bury()
