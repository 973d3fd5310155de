"""S3 as a spool: each header that is sent, each answer that isn't what was hoped for."""

from __future__ import annotations

import time
from base64 import b64encode
from hashlib import md5
from random import Random
from urllib.parse import unquote

import pytest
import pytest_twisted
from attrs import evolve
from google_crc32c import value as crc32c
from twisted.internet import reactor

from resumable.httpclient.client import HttpAnswer, StreamedAnswer
from resumable.httpclient.errors import KeptClosed
from resumable.model import keys
from resumable.remotes import urls
from resumable.remotes.errors import (
    AuthFailed,
    CannotCopy,
    Conflict,
    NotThere,
    Permanent,
    RemoteError,
    Throttled,
    Transient,
)
from resumable.remotes.interfaces import Unfinished
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.object_store import ObjectProperties, SentPart
from resumable.remotes.reading import BytesStream, Presented
from resumable.remotes.regions import BytesRegion
from resumable.remotes.s3.client import S3Client
from resumable.remotes.s3.credentials import StaticCredentials
from resumable.remotes.s3.endpoint import AWS, GENERIC, R2, Endpoint
from resumable.remotes.s3.records import S3ObjectOptions
from resumable.remotes.s3.requests import S3Requests
from resumable.remotes.s3.s3_spool import S3SpoolStore
from resumable.testing import SteppedPool
from tests.remotes.s3_proxy import answer, error
from tests.remotes.s3_rig import rig
from tests.remotes.s3_servers import started

PLACE = Endpoint("https", "h", 443, "/b", "us-east-1", "b")
OURS = ObjectProperties("i" * 32, "worker-token", {"note": b"as it is"})
BEGUN = b"<InitiateMultipartUploadResult><UploadId>m1</UploadId></InitiateMultipartUploadResult>"
COMPLETED = b"<CompleteMultipartUploadResult><ETag>whole</ETag></CompleteMultipartUploadResult>"
ETAG = {"etag": '"e"', "content-length": "0"}


class Sent:
    """A request: ``operation`` is method and path."""

    def __init__(self, method, url, headers, body):
        self.operation = f"{method} {unquote(url.partition('//h')[2])}"
        self.headers = dict(headers)
        self.body = b"" if body is None else getattr(body, "data", b"")


class Script:
    """Answers with what it is told, in turn; ``sent`` has the requests."""

    def __init__(self):
        self.answers, self.sent = [], []

    def say(self, body=b"", status=200, **headers):
        body = body if isinstance(body, bytes) else body.encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append(HttpAnswer(status, given or ETAG, body))

    async def request(self, method, url, headers, body, *, largest, patience=1.0):
        self.sent.append(Sent(method, url, headers, body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stream(self, url, headers):
        self.sent.append(Sent("GET", url, headers, None))
        answer = self.answers.pop(0)
        return StreamedAnswer(answer.status, answer.headers, BytesStream(answer.body), answer.body)


@pytest.fixture
def script():
    return Script()


def store_of(script, dialect=AWS, **options):
    requests = S3Requests(PLACE, StaticCredentials("a", "s"), script, Now(), lambda: 0.0, sign_bodies=False)
    template = keys.parse(prefix="p")
    given = S3ObjectOptions(**options)
    return S3SpoolStore(S3Client(requests), Now(), lambda: 0.0, template=template, dialect=dialect, options=given)


class Now:
    """A pool that does its work in the call."""

    async def run(self, f, *args, **kwargs):
        return f(*args, **kwargs)


async def begun(script, store):
    script.say(BEGUN)
    return await store.begin("p/k", OURS)


async def part(script, store, handle, number, data, etag='"e"'):
    script.say(etag=etag)
    receipt = await store.write_part("p/k", handle, number, f"n{number}", BytesRegion(data))
    return SentPart(number, f"n{number}", len(data), receipt)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kept", [False, True])
async def test_a_part_that_a_kept_connection_may_have_brought_was_not_surely_refused(script, kept):
    store = store_of(script)
    handle = await begun(script, store)
    script.answers.extend([KeptClosed()] * kept)
    script.say(error("SlowDown"), status=503)
    with pytest.raises(Throttled) as found:
        await store.write_part("p/k", handle, 1, "n1", BytesRegion(b"x"))
    assert found.value.undone is not kept
    assert not script.answers


def encoded(data):
    return b64encode(crc32c(data).to_bytes(4, "big")).decode()


# -- what is sent


@pytest_twisted.ensureDeferred
async def test_an_object_carries_id_token_and_what_was_asked_for(script):
    store = store_of(script, storage_class="STANDARD_IA", acl="private", encryption="AES256", tags={"a": "b"})
    script.say()
    made = await store.put("p/k", BytesRegion(b"hello"), OURS, True)
    await begun(script, store)
    for sent in script.sent:
        named = {name: value for name, value in sent.headers.items() if name.startswith(("x-amz-", "Content-T"))}
        assert named.items() >= {
            "x-amz-meta-resumable-upload-id": OURS.upload_id, "x-amz-meta-resumable-token": "worker-token",
            "x-amz-meta-note": "as it is", "x-amz-storage-class": "STANDARD_IA", "x-amz-acl": "private",
            "x-amz-server-side-encryption": "AES256", "x-amz-tagging": "a=b",
            "Content-Type": "application/octet-stream",
        }.items()  # fmt: skip
    assert script.sent[0].headers["If-None-Match"] == "*"
    assert "If-None-Match" not in script.sent[1].headers
    assert script.sent[1].headers["x-amz-checksum-algorithm"] == "CRC32C"
    assert script.sent[1].headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert made.checksum == f"crc32c:{encoded(b'hello')}"
    assert made.to_json()["token"] == "worker-token"


@pytest_twisted.ensureDeferred
async def test_without_the_clients_metadata_id_and_token_stay(script):
    script.say()
    await store_of(script, client_metadata=False).put("p/k", BytesRegion(b""), OURS, False)
    headers = script.sent[0].headers
    assert sorted(name for name in headers if name.startswith("x-amz-meta-")) == [
        "x-amz-meta-resumable-token",
        "x-amz-meta-resumable-upload-id",
    ]
    assert "If-None-Match" not in headers


@pytest_twisted.ensureDeferred
async def test_a_customers_key_goes_with_every_request_for_an_objects_bytes(script):
    store = store_of(script, customer_key=b"k" * 32)
    handle = await begun(script, store)
    one = await part(script, store, handle, 1, b"abc")
    script.say("<CopyPartResult><ETag>e</ETag></CopyPartResult>")
    await store.copy_part("p/k", handle, 2, "n2", "p/s", 3, 4)
    script.say()
    await store.put("p/k", BytesRegion(b""), OURS, True)
    script.say()
    await store.write("p/.tails/w", BytesRegion(b"piece"))
    script.say()
    assert (await store.find("p/k")).token == ""
    script.say(b"abc", 206, content_range="bytes 0-2/9")
    await store.open("p/k", 0, 3)
    script.say(COMPLETED)
    await store.complete("p/k", handle, OURS, [one], True)
    assert len(script.sent) == 8
    for sent in script.sent:
        assert sent.headers["x-amz-server-side-encryption-customer-key"] == b64encode(b"k" * 32).decode()
        assert len(sent.headers["x-amz-server-side-encryption-customer-key-md5"]) == 24
        assert sent.headers["x-amz-server-side-encryption-customer-algorithm"] == "AES256"
    copy = script.sent[2].headers
    for name in ("algorithm", "key", "key-md5"):
        same = copy[f"x-amz-server-side-encryption-customer-{name}"]
        assert copy[f"x-amz-copy-source-server-side-encryption-customer-{name}"] == same
    assert (copy["x-amz-copy-source"], copy["x-amz-copy-source-range"]) == ("b/p/s", "bytes=3-6")
    assert await store.signed_url("p/k", Presented("text/plain", "inline", 60.0)) is None


@pytest_twisted.ensureDeferred
async def test_completing_names_the_checksum_and_the_size_of_all(script):
    store = store_of(script)
    handle = await begun(script, store)
    parts = [await part(script, store, handle, 3, b"first, "), await part(script, store, handle, 7, b"second")]
    for _ in range(2):
        script.say(COMPLETED)
        made = await store.complete("p/k", handle, evolve(OURS, token="another"), parts, True)
    first, again = script.sent[-2:]
    assert first.headers["x-amz-checksum-crc32c"] == encoded(b"first, second")
    assert first.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert first.headers["x-amz-mp-object-size"] == "13"
    assert first.headers["If-None-Match"] == "*"
    assert first.body.count(b"<ChecksumCRC32C>") == 2
    assert (again.body, made.token, made.size) == (first.body, "worker-token", 13)


@pytest_twisted.ensureDeferred
async def test_a_copy_without_a_checksum_leaves_the_whole_without_one(script):
    store = store_of(script)
    handle = await begun(script, store)
    script.say("<CopyPartResult><ETag>e</ETag></CopyPartResult>")
    receipt = await store.copy_part("p/k", handle, 1, "n", "p/s", 0, 5)
    script.say(COMPLETED)
    await store.complete("p/k", handle, OURS, [SentPart(1, "n", 5, receipt)], False)
    assert "x-amz-checksum-crc32c" not in script.sent[-1].headers
    assert "If-None-Match" not in script.sent[-1].headers


@pytest_twisted.ensureDeferred
async def test_where_nothing_is_conditional_it_looks_first(script):
    store = store_of(script, GENERIC)
    assert store.conditional is False
    script.say()
    with pytest.raises(Conflict):
        await store.put("p/k", BytesRegion(b"hello"), OURS, True)
    script.say(status=404)
    script.say()
    await store.put("p/k", BytesRegion(b"hello"), OURS, True)
    handle = await begun(script, store)
    script.say()
    with pytest.raises(Conflict):
        await store.complete("p/k", handle, OURS, [], True)
    assert [sent.operation.split("?")[0] for sent in script.sent] == [
        "HEAD /b/p/k", "HEAD /b/p/k", "PUT /b/p/k", "POST /b/p/k", "HEAD /b/p/k",
    ]  # fmt: skip
    assert not any("If-None-Match" in sent.headers for sent in script.sent)


# -- what comes back


@pytest_twisted.ensureDeferred
async def test_metadata_that_the_store_minds_goes_and_id_and_token_stay(script):
    store = store_of(script)
    for _ in range(2):
        script.say(error("MetadataTooLarge"), 400)
    script.say()
    await store.put("p/k", BytesRegion(b"hello"), evolve(OURS, metadata={"a": b"b", "filename": b"x.txt"}), True)
    ours = {"x-amz-meta-resumable-upload-id", "x-amz-meta-resumable-token"}
    custom = [{name for name in sent.headers if name.startswith("x-amz-meta-")} for sent in script.sent]
    assert custom == [{*ours, "x-amz-meta-a", "x-amz-meta-filename"}, ours, ours]
    assert ["Content-Disposition" in sent.headers for sent in script.sent] == [True, True, False]
    assert all(sent.headers["If-None-Match"] == "*" for sent in script.sent)


def listed(*parts):
    rows = "".join(
        f"<Part><PartNumber>{number}</PartNumber><Size>{size}</Size><ETag>{etag}</ETag>{more}</Part>"
        for number, size, etag, more in parts
    )
    return f"<ListPartsResult>{rows}</ListPartsResult>"


@pytest.mark.parametrize("dialect", [AWS, GENERIC], ids=lambda each: each.name)
@pytest_twisted.ensureDeferred
async def test_a_part_that_was_written_again_counts_by_its_checksum(script, dialect):
    """The listed ETag is taken, and all is completed once more."""
    store = store_of(script, dialect)
    handle = await begun(script, store)
    one = await part(script, store, handle, 1, b"hello", '"before"')
    theirs, checksum = md5(b"hello").hexdigest(), f"<ChecksumCRC32C>{encoded(b'hello')}</ChecksumCRC32C>"
    script.say(error("InvalidPart"), 400)
    script.say(listed((1, 5, theirs if dialect is GENERIC else "now", checksum), (2, 3, "nobody's", "")))
    script.say(COMPLETED)
    assert (await store.complete("p/k", handle, OURS, [one], False)).size == 5
    first, _, second = script.sent[-3:]
    assert b"before" in first.body
    assert (theirs if dialect is GENERIC else "now").encode() in second.body


@pytest.mark.parametrize(
    "there", [(1, 5, "now", "<ChecksumCRC32C>AAAAAA==</ChecksumCRC32C>"), (1, 4, '"e"', ""), (2, 5, '"e"', "")]
)
@pytest_twisted.ensureDeferred
async def test_a_part_with_other_bytes_is_permanent(script, there):
    store = store_of(script)
    handle = await begun(script, store)
    one = await part(script, store, handle, 1, b"hello")
    script.say(error("InvalidPart"), 400)
    script.say(listed(there))
    with pytest.raises(Permanent, match="part 1 isn't the one that was confirmed"):
        await store.complete("p/k", handle, OURS, [one], False)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (200, "InternalError", Transient),
        (200, "SlowDown", Throttled),
        (503, "SlowDown", Throttled),
        (404, "NoSuchUpload", NotThere),
        (412, "PreconditionFailed", Conflict),
        (409, "ConditionalRequestConflict", Transient),
        (400, "EntityTooSmall", Permanent),
        (403, "AccessDenied", AuthFailed),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_completing_may_be_answered_with(script, status, code, kind):
    store = store_of(script)
    handle = await begun(script, store)
    one = await part(script, store, handle, 1, b"hello")
    script.say(error(code), status)
    with pytest.raises(RemoteError) as caught:
        await store.complete("p/k", handle, OURS, [one], True)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, error("InternalError"), Transient),
        (200, error("NoSuchKey"), NotThere),
        (404, error("NoSuchKey"), NotThere),
        (404, error("NoSuchUpload"), NotThere),
        (200, "<CopyPartResult/>", Transient),
        (501, error("NotImplemented"), CannotCopy),
        (400, error("InvalidRequest"), CannotCopy),
        (200, "", CannotCopy),
        (503, error("SlowDown"), Throttled),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_a_copy_may_be_answered_with(script, status, body, kind):
    store = store_of(script)
    handle = await begun(script, store)
    script.say(body, status)
    with pytest.raises(RemoteError) as caught:
        await store.copy_part("p/k", handle, 1, "n", "p/s", 0, 5)
    assert type(caught.value) is kind


@pytest.mark.parametrize("status", [416, 412, 404])
@pytest_twisted.ensureDeferred
async def test_bytes_that_are_not_there_are_told_so(script, status):
    script.say(error("InvalidRange" if status == 416 else "NoSuchKey"), status)
    with pytest.raises(NotThere):
        await store_of(script).open("p/k", 5, 5)


@pytest_twisted.ensureDeferred
async def test_ranges_that_are_not_heeded_are_no_answer(script):
    script.say(b"hello", content_length="5")
    with pytest.raises(Permanent):
        await store_of(script).open("p/k", 5, 5)
    script.say(b"hello", content_length="5")
    assert await (await store_of(script).open("p/k", 0, 5)).read() == b"hello"


@pytest_twisted.ensureDeferred
async def test_many_are_removed_with_one_request(script):
    store = store_of(script)
    script.say("<DeleteResult/>")
    await store.remove(["p/a", "p/b&<"])
    assert script.sent[0].operation == "POST /b/?delete="
    assert b"<Object><Key>p/b&amp;&lt;</Key></Object>" in script.sent[0].body
    assert script.sent[0].headers["content-md5"] == b64encode(md5(script.sent[0].body).digest()).decode()
    script.say(status=204)
    await store.remove(["p/a"])
    assert script.sent[1].operation == "DELETE /b/p/a"
    await store.remove([])
    assert len(script.sent) == 2


@pytest_twisted.ensureDeferred
async def test_one_that_was_not_removed_is_told(script):
    rows = "<Error><Key>p/a</Key><Code>NoSuchKey</Code></Error>"
    script.say(f"<DeleteResult>{rows}</DeleteResult>")
    await store_of(script).remove(["p/a", "p/b"])
    for code, kind in (("AccessDenied", AuthFailed), ("InternalError", Transient), ("SlowDown", Throttled)):
        script.say(f"<DeleteResult>{rows}<Error><Key>p/b</Key><Code>{code}</Code></Error></DeleteResult>")
        with pytest.raises(kind):
            await store_of(script).remove(["p/a", "p/b"])


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (405, "MethodNotAllowed"), (400, "MalformedXML")]
)
@pytest_twisted.ensureDeferred
async def test_a_store_that_removes_one_by_one_is_asked_so(script, status, code):
    store = store_of(script)
    script.say(error(code), status)
    for _ in range(4):
        script.say(status=204)
    await store.remove(["p/a", "p/b"])
    await store.remove(["p/c", "p/d"])
    assert [sent.operation.split()[0] for sent in script.sent] == ["POST", *["DELETE"] * 4]
    script.say(error("AccessDenied"), 403)
    script.say(status=204)
    with pytest.raises(AuthFailed):
        await store.remove(["p/e", "p/f"])
    assert script.answers == []


@pytest_twisted.ensureDeferred
async def test_pages_that_do_not_end_are_no_list(script):
    store = store_of(script)
    row = "<Contents><Key>p/a%20b</Key><Size>3</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
    page = f"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>{row}</ListBucketResult>"
    script.say(page)
    found = await store.list("p/", "", 1)
    assert [(each.key, each.size, each.changed_at) for each in found] == [("p/a b", 3, 1767323045.0)]
    script.say(page)
    with pytest.raises(Transient, match="pages don't end"):
        await store.list("p/", found[-1].key, 1)
    assert "start-after=p/a b" in script.sent[-1].operation


@pytest_twisted.ensureDeferred
async def test_what_is_dropped_is_aborted_by_the_stores_own_name(script):
    store = store_of(script)
    handle = await begun(script, store)
    found = Unfinished("p/k", "m1", 5.0)
    assert store.works_with(handle, found)
    assert not store.works_with(handle, evolve(found, handle="m2"))
    script.say(error("NoSuchUpload"), 404)
    await store.drop(found)
    assert script.sent[-1].operation == "DELETE /b/p/k?uploadId=m1"


# -- on the way


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with started("moto", tmp_path_factory.mktemp("buckets")) as running:
        yield running


def live(it, name):
    template = keys.parse(prefix=name)
    return S3SpoolStore(it.client, it.pool, time.time, template=template, dialect=it.server.dialect)


@pytest_twisted.ensureDeferred
async def test_a_completion_whose_answer_is_lost_is_found_by_its_token(server):
    async with rig(server) as it:
        store = live(it, "lost")
        handle = await store.begin("lost/k", OURS)
        receipt = await store.write_part("lost/k", handle, 3, "n", BytesRegion(b"all of it"))
        it.proxy.trouble("CompleteMultipartUpload", "lose")
        with pytest.raises(Transient):
            await store.complete("lost/k", handle, OURS, [SentPart(3, "n", 9, receipt)], True)
        assert it.proxy.requests["CompleteMultipartUpload"] == 1, "a POST is never repeated"
        assert (await store.find("lost/k")).token == store.token_of(handle)


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_busy_says_for_how_long(server):
    async with rig(server) as it:
        store = live(it, "busy")
        handle = await store.begin("busy/k", OURS)
        busy = answer("503 Slow Down", error("SlowDown"), Retry_After="3")
        it.proxy.trouble("UploadPart", "answer", answer=busy)
        it.proxy.trouble("PutObject", "answer", answer=busy)
        for asked in (
            store.write_part("busy/k", handle, 1, "n", BytesRegion(b"part")),
            store.put("busy/k", BytesRegion(b"whole"), OURS, True),
        ):
            with pytest.raises(Throttled) as caught:
                await asked
            assert caught.value.retry_after == 3.0
        assert await store.find("busy/k") is None


@pytest_twisted.ensureDeferred
async def test_a_put_whose_answer_is_lost_is_refused_and_ours(server):
    async with rig(server) as it:
        store = live(it, "put")
        it.proxy.trouble("PutObject", "lose")
        with pytest.raises(Transient):
            await store.put("put/k", BytesRegion(b"whole"), OURS, True)
        with pytest.raises(Conflict):
            await store.put("put/k", BytesRegion(b"whole"), OURS, True)
        assert (await store.find("put/k")).token == OURS.token


@pytest_twisted.ensureDeferred
async def test_a_probe_tells_what_a_spool_may_not(server):
    async with rig(server) as it:
        for operation in ("CreateMultipartUpload", "HeadObject", "ListMultipartUploads", "ListObjectsV2"):
            it.proxy.trouble(operation, "answer", answer=answer("403 No", error("AccessDenied")))
            with pytest.raises(AuthFailed):
                await live(it, "probe").probe()
            it.proxy.calm()
        await live(it, "probe").probe()
        assert [key for key in await it.unfinished() if key.startswith("probe/")] == []


# -- from a URL


def means():
    return urls.BackendServices(reactor, SteppedPool(reactor), MemoryJournal(), None, time.time, Random(1))


@pytest_twisted.ensureDeferred
async def test_a_url_makes_a_spool(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    store = urls.make_store(urls.parse("s3://b-1/some/prefix?dialect=r2&endpoint=http://h&part-size=6M"), means())
    assert (store.prefix, store.part_size, store.limits) == ("some/prefix/", 6 << 20, R2.limits)
    assert (store.numbered, store.part_objects, store.conditional) == (True, False, True)
    assert store.limits.equal
    await store.close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory://m", "uploads can't live there"),
        ("s3://b-1?storage-class=GLACIER", "must be readable at once"),
        ("s3://b-1?sse-c-file=/nonexistent", "can't be read"),
    ],
)
def test_a_url_that_can_be_no_spool_is_told_in_one_line(url, reason):
    with pytest.raises(urls.BadRemote, match=reason) as caught:
        urls.make_store(urls.parse(url), means())
    assert str(caught.value).startswith("spool ")
    assert "\n" not in str(caught.value)
