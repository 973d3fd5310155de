"""S3: what goes wrong between us and a store, over servers that check what is sent, and a proxy that troubles them."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import succeed
from twisted.internet.task import deferLater

from resumable.model import keys
from resumable.remotes.errors import AuthFailed, Conflict, Throttled, Transient, Unusable
from resumable.remotes.plan import PART_SIZE
from resumable.remotes.regions import BytesRegion
from resumable.remotes.s3.credentials import Keys
from tests.remotes.counting_region import CountingRegion
from tests.remotes.fault_suite import MIB, SAID, SMALL, U1, U2, Described, HttpFaultSuite
from tests.remotes.s3_proxy import answer, error
from tests.remotes.s3_rig import rig
from tests.remotes.s3_servers import ACCESS, SECRET, VERSITYGW, started
from tests.remotes.simple_engine import upload

PART = 5 * MIB
BIG = bytes(range(256)) * (PART // 256) + b"the rest"


@pytest.fixture(scope="module", params=["moto", VERSITYGW])
def server(request, tmp_path_factory):
    with started(request.param, tmp_path_factory.mktemp("buckets") / "root") as running:
        yield running


@pytest.fixture(scope="module")
def strict(server):
    return server


@pytest.fixture
def template(request):
    return keys.parse(prefix="".join(c for c in request.node.name if c.isalnum())[-80:])


MATRIX = [
    ("PutObject", "refuse", {}),
    ("PutObject", "lose", {}),
    ("PutObject", "answer", {"answer": answer("503 Slow Down", error("SlowDown"), Retry_After="3")}),
    ("PutObject", "answer", {"answer": answer("500 Oh", error("InternalError"))}),
    ("CreateMultipartUpload", "refuse", {}),
    ("CreateMultipartUpload", "lose", {}),
    ("CreateMultipartUpload", "replace", {"answer": answer("200 OK", "<InitiateMultipartUploadResult/>")}),
    ("UploadPart", "refuse", {}),
    ("UploadPart", "lose", {}),
    ("UploadPart", "reset", {"after": 200_000}),
    ("UploadPart", "answer", {"answer": answer("503 Slow Down", error("SlowDown"), Retry_After="3")}),
    ("UploadPart", "answer", {"answer": answer("503 Slow Down")}),
    ("UploadPart", "replace", {"answer": answer("200 OK")}),
    ("CompleteMultipartUpload", "refuse", {}),
    ("CompleteMultipartUpload", "lose", {}),
    ("CompleteMultipartUpload", "answer", {"answer": answer("200 OK", error("InternalError"))}),
    ("CompleteMultipartUpload", "replace", {"answer": answer("200 OK", "\n " + error("InternalError"))}),
    ("CompleteMultipartUpload", "answer", {"answer": answer("200 OK")}),
    ("CompleteMultipartUpload", "answer", {"answer": answer("409 No", error("ConditionalRequestConflict"))}),
    ("CompleteMultipartUpload", "answer", {"answer": answer("404 No", error("NoSuchUpload"))}),
]  # fmt: skip
UNWELCOME = [
    ("400 No", "MetadataTooLarge"), ("431 Too Large", ""), ("400 No", "InvalidArgument"), ("400 No", "WhoKnows"),
    ("400 No", ""),
]  # fmt: skip


class TestS3Faults(HttpFaultSuite):
    small, begin, part, finish = "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"
    look, refusable = "HeadObject", "CompleteMultipartUpload"
    part_size, big, many = PART, BIG, (PART_SIZE, 4 * MIB)
    slow = (pytest.mark.slow,)
    matrix = tuple(pytest.param(row, marks=pytest.mark.slow) for row in MATRIX)
    unwelcome = tuple(answer(status, error(code) if code else "") for status, code in UNWELCOME)
    refusals = (
        (answer("403 No", error("AccessDenied")), AuthFailed, None),
        (answer("403 No", error("SignatureDoesNotMatch")), AuthFailed, None),
        (answer("403 No", error("RequestTimeTooSkewed")), Unusable, None),
        (answer("301 Elsewhere", error("PermanentRedirect", Endpoint="x")), Unusable, None),
        (answer("412 No", error("PreconditionFailed")), Conflict, None),
    )
    repeatable = (
        ("ListParts", "progress"),
        ("HeadObject", "delete"),
        ("AbortMultipartUpload", "abort"),
        ("DeleteObject", "delete"),
    )
    busy_code = "SlowDown"
    forbidden, right = answer("403 Forbidden"), "s3:ListBucket"
    failing_at = (0, MIB, PART + MIB)

    def rig(self, server, **more):
        return rig(server, **more)

    def busy(self, seconds=None):
        more = {"Retry_After": str(seconds)} if seconds else {}
        return answer("503 Slow Down", error("SlowDown"), **more)

    async def described(self, it, key):
        head = await it.client.head_object(key)
        return Described(head.metadata, head.headers["content-type"], head.headers.get("content-disposition"))

    def names_kept(self, record):
        return {name.removeprefix("x-amz-meta-") for name in record["headers"] if name.startswith("x-amz-meta-")}

    async def unfinished(self, it, prefix, key):
        return await it.unfinished()

    async def check_end(self, it, server, remote, operation, requests):
        if requests.get("CreateMultipartUpload", 0) < 2 or operation == "CreateMultipartUpload":
            assert await it.unfinished() == []
        for each in (await it.client.list_multipart_uploads()).uploads:
            await it.client.abort_multipart_upload(each.key, each.upload_id)

    def most_connections(self, server):
        # moto closes each connection, which the proxy sees a little later
        return 8 if server.name == "moto" else 4


@pytest_twisted.ensureDeferred
async def test_options_of_ours_that_the_store_refuses_cost_no_metadata(server, template):
    """InvalidArgument may mean the storage class: once that is mended, the object has what the client wrote."""
    async with rig(server) as it:
        it.proxy.trouble("PutObject", "answer", answer=answer("400 No", error("InvalidArgument")), times=3)
        remote = it.remote(template=template, part_size=PART)
        with pytest.raises(Unusable):
            await upload(remote, U1, SMALL, SAID)
        stored = await upload(remote, U1, SMALL, SAID)
        assert (await it.client.head_object(stored.key)).metadata["note"] == "n" * 300


@pytest_twisted.ensureDeferred
async def test_a_part_whose_answer_was_lost_is_sent_again(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template, part_size=PART)
        it.proxy.trouble("UploadPart", "lose", times=2)
        await remote.initiate_upload(U1, len(BIG), {})
        with pytest.raises(Transient):
            await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        it.proxy.calm()
        assert await remote.confirmed_parts(U1) == []
        assert await it.content((await upload(remote, U1, BIG)).key) == BIG


@pytest_twisted.ensureDeferred
async def test_an_early_answer_is_heard_and_stops_the_body(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template, part_size=64 * MIB)
        head, _, body = answer("503 Slow", error("SlowDown")).partition(b"\r\n\r\n")
        # head and body come apart, and not a byte of the request's body is read
        it.proxy.trouble("PutObject", "answer", answer=head + b"\r\n\r\n")
        region = CountingRegion(64 * MIB)
        await remote.initiate_upload(U1, region.size, {})
        writing = remote.write_chunk(U1, 0, region, region.size)
        while it.proxy.requests.get("PutObject", 0) == 0:
            await deferLater(reactor, 0.001)
        region.passes = 0
        await deferLater(reactor, 0.05)
        next(iter(it.proxy.open)).transport.write(body)
        with pytest.raises(Throttled):
            await writing
        assert region.passes < region.size // 2
        assert await it.content((await upload(remote, U2, SMALL)).key) == SMALL


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_away_is_transient_and_named_so(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template)
        it.client.requests.endpoint = it.client.endpoint.__class__("http", "127.0.0.1", 1, "/b", "us-east-1", "b")
        with pytest.raises(Transient) as caught:
            await upload(remote, U1, SMALL)
        assert caught.value.code == "ConnectionRefusedError"


@pytest_twisted.ensureDeferred
async def test_expired_keys_are_renewed_once_without_anybody_noticing(server, template):
    class Renewing:
        renewed = 0

        def get(self):
            return succeed(Keys(ACCESS, SECRET))

        def renew(self, refused):
            self.renewed += 1
            return self.get()

    credentials = Renewing()
    async with rig(server, credentials) as it:
        it.proxy.trouble("UploadPart", "answer", answer=answer("400 No", error("ExpiredToken")))
        remote = it.remote(template=template, part_size=PART)
        assert await it.content((await upload(remote, U1, BIG)).key) == BIG
        assert credentials.renewed == 1
        it.proxy.trouble("PutObject", "answer", answer=answer("400 No", error("ExpiredToken")), times=2)
        with pytest.raises(AuthFailed):
            await upload(remote, U2, SMALL)
        assert credentials.renewed == 2
