"""Downloads where the spool is in an object store: a finished upload's object is its file."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from hashlib import md5, sha256
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from resumable.http.download import Remotely
from resumable.model.stored import StoredLayout
from resumable.remotes.errors import Throttled
from resumable.remotes.object_store import ObjectProperties
from resumable.remotes.regions import BytesRegion
from resumable.replication.object_copies import ObjectFiles, digest_field
from resumable.spool.objects.errors import LostObjects
from resumable.spool.objects.object_names import ObjectNames
from resumable.testing.memory_catalog import Fate
from resumable.testing.memory_store import MemoryStore
from tests.http.visitor import Client, Reply, serving
from tests.uploads.fakes import FakeReplication
from tests.uploads.harness import Server

DATA = b"0123456789"
DIGEST = f"sha-256=:{base64.b64encode(sha256(DATA).digest()).decode()}:"
MD5 = base64.b64encode(md5(DATA).digest()).decode()


class Objects:
    """The store, and what the catalog says of it. ``waited``: for whom, and how long at most."""

    def __init__(self) -> None:
        self.store = MemoryStore("in/")
        self.layouts: dict[str, StoredLayout] = {}
        self.waited: list[tuple[str, float, Deferred[bool]]] = []
        self.opened: list[tuple[str, int, int]] = []
        self._open = self.store.open
        self.store.open = self._note  # type: ignore[method-assign]
        names = ObjectNames("in/", "w", lambda: "1")
        self.lost = LostObjects(self)  # type: ignore[arg-type]
        self.files = ObjectFiles(self.store, names, self, self._when_whole, Clock(), self.lost)  # type: ignore[arg-type]

    def tail_of(self, upload_id: str) -> Deferred[StoredLayout | None]:
        return succeed(self.layouts.get(upload_id))

    def finish(self, server: Server, data: bytes = DATA) -> str:
        upload_id = server.upload(data)
        self.layouts[upload_id] = StoredLayout(upload_id, len(data), len(data), 1, finished=True)
        return upload_id

    def complete(self, upload_id: str, data: bytes = DATA, checksum: str | None = None) -> None:
        properties = ObjectProperties(upload_id, "t", {})
        self.store.put(f"in/{upload_id}", BytesRegion(data), properties, False)
        algorithm = "sha-256:" + base64.b64encode(sha256(data).digest()).decode()
        made = {"checksum": algorithm if checksum is None else checksum}
        size = len(data)
        self.layouts[upload_id] = StoredLayout(upload_id, size, size, 1, finished=True, whole=True, made=made)

    def _note(self, key: str, start: int, size: int) -> Any:
        self.opened.append((key, start, size))
        return self._open(key, start, size)

    def _when_whole(self, upload_id: str, seconds: float) -> Deferred[bool]:
        self.waited.append((upload_id, seconds, Deferred()))
        return self.waited[-1][2]


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def server(objects: Objects) -> Iterator[Server]:
    with serving(objects=objects.files) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server)


@pytest.fixture
def whole(objects: Objects, server: Server) -> str:
    upload_id = objects.finish(server)
    objects.complete(upload_id)
    return upload_id


def get(client: Client, upload_id: str, *fields: str, method: str = "GET") -> Reply:
    return client.ask(method, f"/files/{upload_id}", *fields, tus=False)


@pytest.mark.parametrize("remotely", [Remotely.PROXY, Remotely.OFF])
def test_the_bytes_come_from_the_object_and_no_more_of_them_than_were_asked_for(
    server: Server, objects: Objects, whole: str, remotely: Remotely
) -> None:
    client = Client(server, remotely=remotely)
    reply = get(client, whole)
    assert (reply.status, reply.body, reply.get("Content-Length")) == (200, DATA, "10")
    some = get(client, whole, "Range: bytes=2-4")
    assert (some.status, some.body, some.get("Content-Range")) == (206, b"234", "bytes 2-4/10")
    assert objects.opened == [(f"in/{whole}", 0, 10), (f"in/{whole}", 2, 3)]
    tag = reply.get("ETag")
    assert some.get("ETag") == tag and get(client, whole, f"If-None-Match: {tag}").status == 304
    assert len(objects.opened) == 2 and not objects.waited


def test_the_digest_that_the_store_has_confirmed_is_that_of_the_whole_file(client: Client, whole: str) -> None:
    head = get(client, whole, method="HEAD")
    assert (head.status, head.get("Content-Length"), head.get("Repr-Digest")) == (200, "10", DIGEST)
    assert get(client, whole).get("Repr-Digest") == DIGEST
    assert get(client, whole, "Range: bytes=2-4").get("Repr-Digest") == DIGEST


def test_a_file_is_sent_to_where_the_store_has_it(server: Server, objects: Objects, whole: str) -> None:
    client = Client(server, remotely=Remotely.REDIRECT)
    reply = get(client, whole, "Range: bytes=2-4")
    assert reply.status == 307 and (reply.get("Location") or "").startswith(f"https://memory.invalid/in/{whole}?")
    assert reply.get("Repr-Digest") is None and reply.get("ETag") is None and not objects.opened
    objects.store.signed_url = lambda *asked: succeed(None)  # type: ignore[method-assign]
    assert get(client, whole).body == DATA


def test_an_object_that_is_not_there_yet_is_waited_for(client: Client, objects: Objects, server: Server) -> None:
    upload_id = objects.finish(server)
    client.begin("GET", f"/files/{upload_id}", tus=False)
    assert client.reply() is None
    ((waits, seconds, waiter),) = objects.waited
    assert (waits, seconds) == (upload_id, 5.0)
    objects.complete(upload_id)
    waiter.callback(True)
    reply = client.reply()
    assert reply is not None and (reply.status, reply.body) == (200, DATA)


def test_an_object_that_does_not_come_is_503_for_a_while(client: Client, objects: Objects, server: Server) -> None:
    upload_id = objects.finish(server)
    client.begin("GET", f"/files/{upload_id}", tus=False)
    objects.waited[0][2].callback(False)
    reply = client.reply()
    assert reply is not None and reply.status == 503 and int(reply.get("Retry-After") or 0) > 0
    assert reply.get("Content-Disposition") is None and not objects.opened
    assert client.ask("HEAD", f"/files/{upload_id}").status == 200, "tus needs no object"


def test_a_store_that_fails_once_is_asked_again_and_one_that_is_down_is_503(
    client: Client, objects: Objects, whole: str
) -> None:
    objects.store.fates.append(Fate.FAILS)
    assert get(client, whole).body == DATA
    objects.store.down = True
    reply = get(client, whole)
    assert reply.status == 503 and reply.get("Retry-After") == "5"
    assert reply.get("Repr-Digest") is None and reply.get("ETag") is None


def test_a_store_that_wants_a_pause_is_not_asked_again_at_once(client: Client, objects: Objects, whole: str) -> None:
    asked: list[int] = []

    async def busy(*_: Any) -> Any:
        asked.append(1)
        raise Throttled("slow down", 7.0)

    objects.store.open = lambda *given: Deferred.fromCoroutine(busy(*given))  # type: ignore[method-assign]
    reply = get(client, whole)
    assert (reply.status, reply.get("Retry-After"), len(asked)) == (503, "7", 1)


def test_an_object_that_has_vanished_is_404_and_told_of_once(client: Client, objects: Objects, whole: str) -> None:
    objects.store.objects.clear()
    with capturedLogs() as logged:
        assert get(client, whole).status == 404
        assert get(client, whole, method="HEAD").status == 404
    (told,) = [each for each in logged if each["log_level"] >= LogLevel.warn]
    assert (told["log_level"], told["upload"], told["key"]) == (LogLevel.error, whole, f"in/{whole}")
    assert objects.lost.count == 1


def test_an_empty_file_asks_nothing_of_the_store(client: Client, objects: Objects, server: Server) -> None:
    upload_id = objects.finish(server, b"")
    objects.complete(upload_id, b"")
    reply = get(client, upload_id)
    assert (reply.status, reply.body, reply.get("Content-Length")) == (200, b"", "0")
    assert not objects.opened and reply.get("Repr-Digest") is not None


def test_replication_hears_nothing_of_an_upload_before_its_end(objects: Objects) -> None:
    remote = FakeReplication()
    with serving(objects=objects.files, replication=remote) as server:
        upload_id = server.create(len(DATA)).value.id
        server.patch(upload_id, 0, DATA[:4])
        assert not remote.told
        server.patch(upload_id, 4, DATA[4:])
        assert [(each.id, each.finished) for each in remote.told] == [(upload_id, True)]


@pytest.mark.parametrize(
    ("checksum", "field"),
    [
        ("crc32c:yZRlqg==", "crc32c=:yZRlqg==:"),
        (
            "md5:" + base64.b64encode(md5(DATA).digest()).decode(),
            f"md5=:{base64.b64encode(md5(DATA).digest()).decode()}:",
        ),
        ("crc32c:yZRlqg==-3", None),
        ("crc32c:yZRlqg", None),
        ("crc32c:AAAA", None),
        ("crc64nvme:AAAAAAAAAAA=", None),
        ("", None),
        ("sha256:\r\n", None),
    ],
)
def test_only_a_registered_checksum_of_all_bytes_is_told(checksum: str, field: str | None) -> None:
    assert digest_field({"checksum": checksum}) == field
    assert digest_field(None) is None and digest_field({"checksum": None}) is None
