"""What networks and stores do to requests, and that the object is right in the end with few requests."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs, formatEvent

from resumable.httpclient.client import HttpLimits
from resumable.model import keys
from resumable.remotes.errors import AuthFailed, Conflict, Throttled, Transient, Unusable
from resumable.remotes.interfaces import RegionLost
from resumable.remotes.regions import BytesRegion
from resumable.remotes.s3.credentials import Keys
from tests.remotes.counting_region import CountingRegion
from tests.remotes.s3_proxy import answer, error
from tests.remotes.s3_rig import MIB, rig
from tests.remotes.s3_servers import ACCESS, SECRET, VERSITYGW, started
from tests.remotes.simple_engine import persist, upload

U1, U2 = "1" * 32, "2" * 32
PART = 5 * MIB
BIG = bytes(range(256)) * (PART // 256) + b"the rest"
SMALL = b"a small one"


@pytest.fixture(scope="module", params=["moto", VERSITYGW])
def server(request, tmp_path_factory):
    with started(request.param, tmp_path_factory.mktemp("buckets") / "root") as running:
        yield running


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


@pytest.mark.slow
@pytest.mark.parametrize(("operation", "how", "more"), MATRIX, ids=lambda value: str(value)[:20])
@pytest_twisted.ensureDeferred
async def test_whatever_goes_wrong_once_the_object_is_right_in_the_end(server, template, operation, how, more):
    data = SMALL if operation == "PutObject" else BIG
    async with rig(server) as it:
        it.proxy.trouble(operation, how, **more)
        remote = it.remote(template=template, part_size=PART)
        stored, failures = await persist(remote, U1, data)
        assert len(failures) <= 1  # none: the connection was an old one, which is tried again
        assert await it.content(stored.key) == data
        requests = dict(it.proxy.requests)
        assert sum(requests.values()) <= 12
        head = await it.client.head_object(stored.key)
        assert head.metadata["resumable-upload-id"] == U1
        if requests.get("CreateMultipartUpload", 0) < 2 or operation == "CreateMultipartUpload":
            assert await it.unfinished() == []
        for each in (await it.client.list_multipart_uploads()).uploads:
            await it.client.abort_multipart_upload(each.key, each.upload_id)


SAID = {"filename": "größe.txt".encode(), "filetype": b"text/css", "note": b"n" * 300}
REFUSALS = [
    ("400 No", "MetadataTooLarge"), ("431 Too Large", ""), ("400 No", "InvalidArgument"), ("400 No", "WhoKnows"),
    ("400 No", ""),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("status", "code"), REFUSALS)
@pytest.mark.parametrize("operation", ["PutObject", "CreateMultipartUpload"])
@pytest_twisted.ensureDeferred
async def test_metadata_that_the_store_refuses_is_left_out(server, template, operation, status, code, times):
    """Nothing is parked for it: first the metadata goes, then type and name; the id stays, and so is it kept."""
    data = SMALL if operation == "PutObject" else BIG
    async with rig(server) as it:
        it.proxy.trouble(operation, "answer", answer=answer(status, error(code) if code else ""), times=times)
        with capturedLogs() as logged:
            stored = await upload(it.remote(template=template, part_size=PART), U1, data, SAID)
        head = await it.client.head_object(stored.key)
        assert await it.content(stored.key) == data
        assert head.metadata == {"resumable-upload-id": U1}
        assert head.headers["content-type"] == ("text/css" if times == 1 else "application/octet-stream")
        assert ("content-disposition" in head.headers) is (times == 1)
        assert [event for event in logged if event.get("upload") == U1 and "goes without" in formatEvent(event)]
        assert it.proxy.requests[operation] == times + 1
        kept = await it.journal.load(U1)
        assert "x-amz-meta-note" not in kept["headers"] and "x-amz-meta-resumable-upload-id" in kept["headers"]
        assert await it.remote(template=template).delete_object(U1) is True


@pytest.mark.parametrize("operation", ["PutObject", "CreateMultipartUpload"])
@pytest_twisted.ensureDeferred
async def test_what_was_refused_once_is_not_asked_for_again_after_a_restart(server, template, operation):
    data = SMALL if operation == "PutObject" else BIG
    async with rig(server) as it:
        it.proxy.trouble(operation, "answer", answer=answer("400 No", error("MetadataTooLarge")))
        it.proxy.trouble(operation, "answer", answer=answer("503 Slow Down", error("SlowDown")))
        remote = it.remote(template=template, part_size=PART)
        with pytest.raises(Throttled):
            await upload(remote, U1, data, SAID)
        with capturedLogs() as logged:
            stored = await upload(it.remote(template=template, part_size=PART), U1, data, SAID)
        assert it.proxy.requests[operation] == 3
        head = await it.client.head_object(stored.key)
        assert set(head.metadata) == {"resumable-upload-id"}, "although the second process was told the metadata again"
        assert not [event for event in logged if "goes without" in formatEvent(event)], "it was told once"


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


@pytest.mark.parametrize("operation", ["ListParts", "HeadObject", "AbortMultipartUpload", "DeleteObject"])
@pytest.mark.parametrize("how", ["refuse", "lose"])
@pytest_twisted.ensureDeferred
async def test_the_other_operations_may_be_repeated_too(server, template, operation, how):
    async with rig(server) as it:
        remote = it.remote(template=template, part_size=PART)
        await remote.initiate_upload(U1, len(BIG), {})
        await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        await upload(remote, U2, SMALL)
        it.proxy.trouble(operation, how, times=2)  # the second for a request that is sent again on a new connection
        call = {
            "ListParts": lambda: remote.get_upload_progress(U1),
            "HeadObject": lambda: remote.delete_object(U2),
            "AbortMultipartUpload": lambda: remote.abort_upload(U1),
            "DeleteObject": lambda: remote.delete_object(U2),
        }[operation]
        with pytest.raises(Transient):
            await call()
        it.proxy.calm()
        await call()
        await remote.abort_upload(U1)
        assert await it.unfinished() == []


@pytest_twisted.ensureDeferred
async def test_a_lost_answer_to_complete_is_looked_up_before_it_is_asked_again(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template, part_size=PART)
        it.proxy.trouble("CompleteMultipartUpload", "lose")
        with pytest.raises(Transient):
            await upload(remote, U1, BIG)
        again = it.remote(template=template)
        it.proxy.requests.clear()
        stored = await again.finalize_upload(U1)
        assert it.proxy.requests == {"HeadObject": 1}
        assert await again.finalize_upload(U1) == stored
        assert stored.size == len(BIG) and await again.get_upload_progress(U1) == len(BIG)


@pytest_twisted.ensureDeferred
async def test_a_lost_answer_is_found_out_by_asking_for_the_progress_too(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template, part_size=PART)
        it.proxy.trouble("CompleteMultipartUpload", "lose")
        with pytest.raises(Transient):
            await upload(remote, U1, BIG)
        assert await remote.get_upload_progress(U1) == len(BIG)
        assert await remote.delete_object(U1) is True


@pytest_twisted.ensureDeferred
async def test_a_lost_answer_to_put_finds_our_own_object_there(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template)
        it.proxy.trouble("PutObject", "lose")
        await remote.initiate_upload(U1, len(SMALL), {})
        with pytest.raises(Transient):
            await remote.write_chunk(U1, 0, BytesRegion(SMALL), len(SMALL))
        await it.remote(template=template).write_chunk(U1, 0, BytesRegion(SMALL), len(SMALL))
        assert it.proxy.requests == {"PutObject": 2, "HeadObject": 1}
        assert (await remote.finalize_upload(U1)).size == len(SMALL)


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
async def test_the_pause_that_a_store_asks_for_is_passed_on(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template)
        it.proxy.trouble("PutObject", "answer", answer=answer("503 Slow", error("SlowDown"), Retry_After="7"))
        with pytest.raises(Throttled) as caught:
            await upload(remote, U1, SMALL)
        assert caught.value.retry_after == 7.0 and caught.value.code == "SlowDown"


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
async def test_a_stall_ends_with_the_time_out_of_the_clock(server, template):
    clock = Clock()
    async with rig(server, limits=HttpLimits(idle_timeout=30.0), clock=clock) as it:
        remote = it.remote(template=template, part_size=PART)
        for operation, data in (("PutObject", SMALL), ("UploadPart", BIG), ("CompleteMultipartUpload", BIG)):
            it.proxy.requests.clear()
            it.proxy.trouble(operation, "stall")
            outcome: list[object] = []
            Deferred.fromCoroutine(upload(remote, U1 if data is BIG else U2, data)).addBoth(outcome.append)
            while not it.proxy.requests.get(operation):
                await deferLater(reactor, 0.001)
            await deferLater(reactor, 0.05)
            assert not outcome
            clock.advance(29)
            clock.advance(2)
            for _ in range(10):
                clock.advance(30)
            while not outcome:
                await deferLater(reactor, 0.001)
            assert outcome[0].check(Transient) and outcome[0].value.code == "TimedOut"
            it.proxy.calm()


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_away_is_transient_and_named_so(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template)
        it.client.requests.endpoint = it.client.endpoint.__class__("http", "127.0.0.1", 1, "/b", "us-east-1", "b")
        with pytest.raises(Transient) as caught:
            await upload(remote, U1, SMALL)
        assert caught.value.code == "ConnectionRefusedError"


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        ("403 No", error("AccessDenied"), AuthFailed),
        ("403 No", error("SignatureDoesNotMatch"), AuthFailed),
        ("403 No", error("RequestTimeTooSkewed"), Unusable),
        ("301 Elsewhere", error("PermanentRedirect", Endpoint="x"), Unusable),
        ("412 No", error("PreconditionFailed"), Conflict),
    ],
)
@pytest_twisted.ensureDeferred
async def test_refusals_are_told_apart(server, template, status, document, kind):
    async with rig(server) as it:
        remote = it.remote(template=template, part_size=PART)
        for data, operation in ((SMALL, "PutObject"), (BIG, "CompleteMultipartUpload")):
            it.proxy.trouble(operation, "answer", answer=answer(status, document))
            with pytest.raises(kind) as caught:
                await upload(remote, U1 if data is BIG else U2, data)
            assert type(caught.value) is kind and caught.value.advice
        await remote.abort_upload(U1)


@pytest_twisted.ensureDeferred
async def test_when_nobody_may_look_an_object_up_it_is_told_which_right_is_missing(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template, part_size=PART)
        it.proxy.trouble("CompleteMultipartUpload", "lose")
        it.proxy.trouble("HeadObject", "answer", answer=answer("403 Forbidden"))
        with pytest.raises(Transient):
            await upload(remote, U1, BIG)
        with pytest.raises(AuthFailed) as caught:
            await remote.finalize_upload(U1)
        assert "s3:ListBucket" in caught.value.advice
        await remote.finalize_upload(U1)


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


@pytest_twisted.ensureDeferred
async def test_a_call_that_is_given_up_ends_at_once(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template)
        it.proxy.trouble("PutObject", "stall")
        await remote.initiate_upload(U1, len(SMALL), {})
        writing = remote.write_chunk(U1, 0, BytesRegion(SMALL), len(SMALL))
        while not it.proxy.requests:
            await deferLater(reactor, 0.001)
        writing.cancel()
        with pytest.raises(CancelledError):
            await writing
        assert await it.content((await upload(remote, U1, SMALL)).key) == SMALL


@pytest_twisted.ensureDeferred
async def test_what_reading_the_spool_fails_with_comes_through(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template, part_size=PART)
        await remote.initiate_upload(U1, len(BIG), {})
        for failing_at in (0, MIB, PART + MIB):  # when it is digested first, and when it is sent
            region = CountingRegion(PART, failing_at)
            with pytest.raises(RegionLost):
                await remote.write_chunk(U1, 0, region, PART)
        assert await it.content((await upload(remote, U1, BIG)).key) == BIG


@pytest_twisted.ensureDeferred
async def test_memory_and_connections_are_bounded(server, template):
    async with rig(server, limits=HttpLimits(connections=4)) as it:
        remote = it.remote(template=template)
        regions = [CountingRegion(4 * MIB) for _ in range(12)]
        ids = [f"{index:032x}" for index in range(12)]
        for one in ids:
            await remote.initiate_upload(one, 4 * MIB, {})
        writes = [remote.write_chunk(one, 0, region, region.size) for one, region in zip(ids, regions, strict=True)]
        for each in writes:
            await each
        # moto closes each connection, which the proxy sees a little later
        assert it.proxy.most <= (8 if server.name == "moto" else 4)
        assert max(region.largest for region in regions) <= 256 << 10
