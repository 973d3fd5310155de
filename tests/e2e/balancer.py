"""A round-robin balancer as they stand in front of several servers: each *request* goes to the next backend.

It is for the proof that clients need no sticky sessions: no two requests of a client go to the same backend by chance,
also when they come over one connection. Bodies are passed on in both directions as they come; 100 Continue, other
interim answers and answers before the end of the body go through at once. TLS and HTTP/2 are left to others.

Invariant: at most `PIECE` bytes of a body are held in each direction; nothing is ever sent to two backends, except that
another one is asked when a backend takes no connection; a client that leaves, leaves its backend too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from types import TracebackType

PIECE = 1 << 16
MOST_HEAD = 1 << 16
LINGER = 5.0
"""Seconds for which bytes of a client that was answered early are read and dropped: a reset could eat its answer."""
STOP = 30.0
"""Seconds within which the thread must end."""


class Cut(Exception):
    """A connection ended, or said what is not HTTP/1.1, in the middle of a message."""


@dataclass(frozen=True)
class Head:
    """The start line and the fields of a message, with the bytes they came in."""

    raw: bytes
    line: tuple[str, ...]
    fields: dict[str, str]

    @property
    def status(self) -> int:
        return int(self.line[1])

    @property
    def is_chunked(self) -> bool:
        return "chunked" in self.fields.get("transfer-encoding", "").lower()

    @property
    def length(self) -> int | None:
        """The Content-Length in bytes; None: none was told."""
        told = self.fields.get("content-length")
        return None if told is None else int(told)

    @property
    def closes(self) -> bool:
        """Whether its connection ends after this message."""
        return "close" in self.fields.get("connection", "").lower() or self.line[0] == "HTTP/1.0"


@dataclass(frozen=True)
class Served:
    """One request and who got it; `status` is None until it has its final answer."""

    method: str
    target: str
    backend: int
    status: int | None = None


@dataclass
class _Log:
    """What went where, in the order in which requests came; used by two threads."""

    entries: list[Served] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sent(self, method: str, target: str, backend: int) -> int:
        with self.lock:
            self.entries.append(Served(method, target, backend))
            return len(self.entries) - 1

    def answered(self, at: int, status: int) -> None:
        with self.lock:
            old = self.entries[at]
            self.entries[at] = Served(old.method, old.target, old.backend, status)


class _Reader(asyncio.StreamReader):
    """Of a client. `ended` is set as soon as it ends its side, whatever is still to be read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(MOST_HEAD, loop)
        self.ended = asyncio.Event()

    def feed_eof(self) -> None:
        self.ended.set()
        super().feed_eof()


class Balancer:
    """Listens on a free port of the loopback interface while it is entered: ``with Balancer([8001, 8002]) as it``.

    `backends` are ports of the loopback interface.
    """

    def __init__(self, backends: Iterable[int]) -> None:
        self._backends = tuple(backends)
        self._next = itertools.count()
        self._log = _Log()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="balancer", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Of the uploads behind it."""
        return f"{self.origin}/files/"

    @property
    def served(self) -> list[Served]:
        """The requests so far that a backend took, in the order in which they came."""
        with self._log.lock:
            return list(self._log.entries)

    @property
    def shares(self) -> Counter[int]:
        """How many requests each backend took."""
        return Counter(each.backend for each in self.served)

    def use(self, backends: Iterable[int]) -> None:
        """Send new requests to these from now on; those under way go on."""
        self._backends = tuple(backends)

    def __enter__(self) -> Balancer:
        self._thread.start()
        if not self._ready.wait(STOP):
            raise RuntimeError("the balancer did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._loop is not None and self._stopped is not None
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(STOP)
        if self._thread.is_alive():
            raise RuntimeError("the balancer did not stop")

    async def _run(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        loop = self._loop
        server = await loop.create_server(
            lambda: asyncio.StreamReaderProtocol(_Reader(loop), self._accept, loop), "127.0.0.1", 0
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._client(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _client(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        """All requests of one connection, one after the other."""
        _hold_little(writer)
        with contextlib.suppress(Cut, OSError, ValueError):
            try:
                while (head := await _head(reader)) is not None:
                    if not await self._request(head, reader, writer):
                        await _linger(reader, writer)
                        return
            finally:
                writer.close()

    async def _request(self, head: Head, reader: _Reader, writer: asyncio.StreamWriter) -> bool:
        """Pass one request on, and its answer back. False: the client's connection can't go on."""
        try:
            backend, from_backend, to_backend = await self._connected()
        except OSError:
            return await _refuse(writer, 503, "no backend takes a connection")
        at = self._log.sent(head.line[0], head.line[1], backend)
        _hold_little(to_backend)
        up = asyncio.ensure_future(_upload(head, reader, to_backend))
        leaving = asyncio.ensure_future(_leave_with(reader, up, to_backend))
        try:
            answer = await _answers(from_backend, writer, up)
            if answer is None:
                return await _refuse(writer, 502, "the backend answered nothing")
            self._log.answered(at, answer.status)
            async for piece in _body(from_backend, answer, of_request=head):
                await _send(writer, piece)
            if answer.closes or not _is_framed(answer, head):
                return up.done() and _went_well(up) and _is_framed(answer, head) and not head.closes
            # An early answer: the backend reads the rest, or closes.
            return await _either(up, from_backend) and not head.closes
        finally:
            to_backend.close()
            leaving.cancel()
            up.cancel()
            await asyncio.gather(leaving, up, return_exceptions=True)

    async def _connected(self) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
        """The next backend that takes a connection. Raises OSError if none does."""
        backends, first = self._backends, next(self._next)
        for turn in range(len(backends)):
            backend = backends[(first + turn) % len(backends)]
            with contextlib.suppress(OSError):
                return backend, *await asyncio.open_connection("127.0.0.1", backend, limit=MOST_HEAD)
        raise OSError("no backend takes a connection")


def _hold_little(writer: asyncio.StreamWriter) -> None:
    """`drain` waits until the kernel has everything."""
    writer.transport.set_write_buffer_limits(high=0)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _head(reader: asyncio.StreamReader) -> Head | None:
    """The next head; None at the end of a connection. Raises Cut."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise Cut("ended within a head") from None
        return None
    except asyncio.LimitOverrunError:
        raise Cut("a head is too long") from None
    first, *lines = raw.decode("latin-1").strip("\r\n").split("\r\n")
    if " " not in first:  # the rest of a body that an early answer has cut off
        raise Cut("no head")
    pairs = (line.partition(":") for line in lines)
    return Head(raw, tuple(first.split(" ", 2)), {name.lower(): value.strip() for name, _, value in pairs})


def _has_body(answer: Head, request: Head) -> bool:
    return request.line[0] != "HEAD" and answer.status not in (204, 304)


def _is_framed(answer: Head, request: Head) -> bool:
    """Whether the end of the answer is told by itself, not by the end of its connection."""
    return not _has_body(answer, request) or answer.is_chunked or answer.length is not None


async def _pieces(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        piece = await reader.read(min(size, PIECE))
        if not piece:
            raise Cut("ended within a body")
        size -= len(piece)
        yield piece


async def _body(reader: asyncio.StreamReader, head: Head, of_request: Head | None = None) -> AsyncIterator[bytes]:
    """The bytes of a body as they are on the wire. `of_request`: `head` is an answer to it. Raises Cut."""
    if of_request is not None and not _has_body(head, of_request):
        return
    if head.is_chunked:
        async for piece in _chunks(reader):
            yield piece
    elif head.length is not None:
        async for piece in _pieces(reader, head.length):
            yield piece
    elif of_request is not None:
        while piece := await reader.read(PIECE):
            yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        line = await _line(reader)
        yield line
        size = int(line.partition(b";")[0], 16)
        if not size:
            break
        async for piece in _pieces(reader, size + 2):
            yield piece
    while (line := await _line(reader)) != b"\r\n":
        yield line
    yield line


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise Cut("ended within a line")
    return line


async def _upload(head: Head, reader: asyncio.StreamReader, to_backend: asyncio.StreamWriter) -> None:
    """Pass the request on. A client that leaves takes the backend's connection with it."""
    try:
        await _send(to_backend, head.raw)
        async for piece in _body(reader, head):
            await _send(to_backend, piece)
    except Cut:
        to_backend.write_eof()
        raise


async def _leave_with(reader: _Reader, up: asyncio.Future[None], to_backend: asyncio.StreamWriter) -> None:
    """Close the backend's connection when the client leaves before its answer has come, as nginx does."""
    await asyncio.wait([up])
    await reader.ended.wait()
    to_backend.close()


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: asyncio.Future[None]) -> Head | None:
    """Pass on what comes up to the head of the final answer, and give that; None when there is none."""
    try:
        while (answer := await _head(reader)) is not None:
            await _send(writer, answer.raw)
            if answer.status >= 200:
                return answer
    except ConnectionResetError:
        pass
    if up.done() and isinstance(up.exception(), Cut):
        raise Cut("the client left")
    return None


def _went_well(up: asyncio.Future[None]) -> bool:
    return not up.cancelled() and up.exception() is None


async def _either(up: asyncio.Future[None], from_backend: asyncio.StreamReader) -> bool:
    """Wait until the request is passed on, or the backend closes. True: it was passed on."""
    closed = asyncio.ensure_future(from_backend.read(1))
    try:
        await asyncio.wait([up, closed], return_when=asyncio.FIRST_COMPLETED)
        return up.done() and _went_well(up)
    finally:
        closed.cancel()
        await asyncio.gather(closed, return_exceptions=True)


async def _refuse(writer: asyncio.StreamWriter, status: int, why: str) -> bool:
    body = f"{why}\n".encode()
    head = f"HTTP/1.1 {status} Balancer\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    await _send(writer, f"{head}Retry-After: 1\r\nConnection: close\r\n\r\n".encode() + body)
    return False


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End our side, and read on for a while."""
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        writer.write_eof()
        async with asyncio.timeout(LINGER):
            while await reader.read(PIECE):
                pass
