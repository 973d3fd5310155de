"""A proxy before a server that does to requests what networks and stores do; those of S3, if not told others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

OPERATIONS = [
    ("CreateMultipartUpload", rb"POST [^ ]*[?&]uploads"),
    ("DeleteObjects", rb"POST [^ ]*[?&]delete="),
    ("UploadPartCopy", rb"(?is)PUT [^ ]*partNumber=.*\r\nx-amz-copy-source:"),
    ("UploadPart", rb"PUT [^ ]*partNumber="),
    ("ListParts", rb"GET [^ ]*uploadId="),
    ("ListMultipartUploads", rb"GET [^ ]*[?&]uploads"),
    ("CompleteMultipartUpload", rb"POST [^ ]*uploadId="),
    ("AbortMultipartUpload", rb"DELETE [^ ]*uploadId="),
    ("PutObject", rb"PUT "),
    ("HeadObject", rb"HEAD "),
    ("ListObjectsV2", rb"GET [^ ]*[?&]list-type="),
    ("GetObject", rb"GET "),
    ("DeleteObject", rb"DELETE "),
]


@frozen
class Trouble:
    """What happens to a request of ``operation``.

    ``how``: ``refuse`` (closed at once), ``lose`` (done, but the answer is dropped), ``answer`` (with ``answer``, and
    nothing more is read), ``replace`` (done, but answered with ``answer``), ``reset`` (after ``after`` bytes of the
    body), ``stall`` (nothing is read or answered), ``corrupt`` (a byte of the body is another).
    """

    operation: str
    how: str
    answer: bytes = b""
    after: int = 0
    times: int = 1


def answer(status: str, body: str = "", **headers: str) -> bytes:
    """An HTTP answer; underscores in names stand for hyphens."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: application/xml", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", body]).encode()


def error(code: str, message: str = "as it is", **elements: str) -> str:
    """An error document."""
    rest = "".join(f"<{name}>{value}</{name}>" for name, value in elements.items())
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message>{rest}</Error>'


class Proxy(Factory):
    """``requests`` counts what came, by operation; ``received`` the bytes of bodies; ``most``: connections at once."""

    noisy = False

    def __init__(self, reactor: Any, port: int, operations: Sequence[tuple[str, bytes]] = OPERATIONS) -> None:
        self.operations = operations
        self.requests: dict[str, int] = {}
        self.received = 0
        self.connections = self.most = 0
        self.open: set[Any] = set()
        self._reactor = reactor
        self._port = port
        self._troubles: list[Trouble] = []

    def trouble(self, operation: str, how: str, **more: Any) -> None:
        self._troubles.append(Trouble(operation, how, **more))

    def calm(self) -> None:
        self._troubles.clear()

    def take(self, operation: str) -> Trouble | None:
        self.requests[operation] = self.requests.get(operation, 0) + 1
        for index, each in enumerate(self._troubles):
            if each.operation == operation:
                left = evolve(each, times=each.times - 1)
                self._troubles[index : index + 1] = [left] if left.times else []
                return each
        return None

    def buildProtocol(self, addr: Any) -> Protocol:
        self.connections += 1
        return _Client(self, TCP4ClientEndpoint(self._reactor, "127.0.0.1", self._port))

    async def cut_off(self) -> None:
        """Break all connections; the store's ends are closed, too, when this returns."""
        for each in list(self.open):
            each.transport.abortConnection()
        while self.open:
            await deferLater(self._reactor, 0)
        await deferLater(self._reactor, 0)


class _Client(Protocol):
    def __init__(self, proxy: Proxy, endpoint: TCP4ClientEndpoint) -> None:
        self.proxy, self.endpoint = proxy, endpoint
        self.buffer, self.left, self.body = b"", 0, 0
        self.current: Trouble | None = None
        self.store: Any = None
        self.waiting: list[bytes] = []

    def connectionMade(self) -> None:
        self.proxy.open.add(self)
        self.proxy.most = max(self.proxy.most, len(self.proxy.open))
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: _Store(self)  # type: ignore[method-assign]
        self.endpoint.connect(factory).addCallbacks(self.store_there, lambda _: self.transport.abortConnection())

    def store_there(self, store: Any) -> None:
        self.store = store
        if self not in self.proxy.open:
            store.transport.abortConnection()  # a server that does one thing at a time would wait for it
        for data in self.waiting:
            store.transport.write(data)
        self.waiting.clear()

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        while self.buffer:
            if self.left:
                piece, self.buffer = self.buffer[: self.left], self.buffer[self.left :]
                self.left -= len(piece)
                self.piece(piece)
            elif b"\r\n\r\n" in self.buffer:
                head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
                self.head(head + b"\r\n\r\n")
            else:
                return

    def head(self, head: bytes) -> None:
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        self.left, self.body = int(length[1]) if length else 0, 0
        operation = next(name for name, pattern in self.proxy.operations if re.match(pattern, head))
        self.current = trouble = self.proxy.take(operation)
        if trouble is None or trouble.how in ("lose", "replace", "corrupt", "reset"):
            self.send(head)
        elif trouble.how == "refuse":
            self.transport.abortConnection()
        elif trouble.how in ("stall", "answer"):
            self.transport.write(trouble.answer)
            self.transport.pauseProducing()
            self.left, self.buffer = 0, b""

    def piece(self, piece: bytes) -> None:
        self.proxy.received += len(piece)
        self.body += len(piece)
        trouble = self.current
        if trouble and trouble.how == "corrupt" and self.body == len(piece):
            piece = bytes([piece[0] ^ 1]) + piece[1:]
        if trouble and trouble.how == "reset" and self.body > trouble.after:
            self.buffer, self.left = b"", 0
            self.transport.abortConnection()
        else:
            self.send(piece)

    def send(self, data: bytes) -> None:
        if self.store is None:
            self.waiting.append(data)
        else:
            self.store.transport.write(data)

    def from_store(self, data: bytes) -> None:
        trouble = self.current
        if trouble and trouble.how == "lose":
            self.transport.abortConnection()
        elif trouble and trouble.how == "replace":
            self.transport.write(trouble.answer)
            self.transport.loseConnection()
            self.current = Trouble(trouble.operation, "done")
        elif not trouble or trouble.how != "done":
            self.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.proxy.open.discard(self)
        if self.store is not None:
            self.store.transport.abortConnection()


class _Store(Protocol):
    def __init__(self, client: _Client) -> None:
        self.client = client

    def dataReceived(self, data: bytes) -> None:
        self.client.from_store(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.client.transport.loseConnection()
