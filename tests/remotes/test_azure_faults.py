"""What networks and Azure do to requests, and that the blob is right in the end with few requests."""

from __future__ import annotations

import tracemalloc
from threading import Event

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from resumable.remotes.azure.calls import BlobBody, GivenUp
from resumable.remotes.errors import (
    AuthFailed,
    Conflict,
    NotThere,
    OutOfStep,
    RemoteError,
    Transient,
    Unusable,
)
from resumable.remotes.interfaces import RegionLost
from resumable.remotes.regions import STEP, BytesRegion
from tests.remotes.azure_rig import rig, upload, write
from tests.remotes.azure_servers import AZURITE, azurite
from tests.remotes.counting_region import CountingRegion
from tests.remotes.fault_suite import MIB, SMALL, U1, U2, Described, FaultSuite
from tests.remotes.s3_proxy import answer, error
from tests.remotes.simple_engine import persist

PART = 64 << 10
BIG = bytes(range(256)) * (2 * PART // 256) + b"the rest"


@pytest.fixture(scope="module", params=[AZURITE])
def server(tmp_path_factory):
    with azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture(scope="module")
def strict(server):
    return server


@pytest.fixture
def prefix(request):
    return "".join(c for c in request.node.name if c.isalnum())[-80:]


def refusal(status: str, code: str, **headers: str) -> bytes:
    return answer(status, error(code), x_ms_error_code=code, **headers)


MATRIX = [
    ("Put Blob", "refuse", {}),
    ("Put Blob", "lose", {}),
    ("Put Blob", "reset", {}),
    ("Put Blob", "replace", {"answer": refusal("400 No", "Md5Mismatch")}),
    ("Put Blob", "answer", {"answer": refusal("503 Busy", "ServerBusy", Retry_After="3")}),
    ("Put Blob", "answer", {"answer": refusal("500 Oh", "InternalError")}),
    ("Put Block", "refuse", {}),
    ("Put Block", "lose", {}),
    ("Put Block", "reset", {"after": 20_000}),
    ("Put Block", "answer", {"answer": refusal("400 No", "Md5Mismatch")}),
    ("Put Block", "answer", {"answer": refusal("503 Busy", "ServerBusy")}),
    ("Put Block", "answer", {"answer": answer("502 Bad Gateway", "a proxy's")}),
    ("Put Block", "answer", {"answer": refusal("500 Oh", "OperationTimedOut")}),
    ("Put Block List", "refuse", {}),
    ("Put Block List", "lose", {}),
    ("Put Block List", "reset", {}),
    ("Put Block List", "answer", {"answer": refusal("500 Oh", "InternalError")}),
    ("Put Block List", "replace", {"answer": refusal("500 Oh", "InternalError")}),
    ("Put Block List", "answer", {"answer": refusal("400 No", "InvalidBlockList")}),
]  # fmt: skip


class TestAzureFaults(FaultSuite):
    small, begin, finish, look, refusable = (
        "Put Blob", "Put Block List", "Put Block List", "Get Blob Properties", "Put Block List",
    )  # fmt: skip
    id_name = "resumable_upload_id"
    part_size, big = PART, BIG
    matrix = MATRIX
    unwelcome = tuple(
        refusal("400 No", code) for code in ("MetadataTooLarge", "InvalidMetadata", "InvalidHeaderValue", "WhoKnows")
    )
    refusals = tuple(
        (refusal(status, code, **headers), kind, code)
        for status, code, headers, kind in (
            ("403 No", "AuthorizationPermissionMismatch", {}, AuthFailed),
            ("403 No", "AuthenticationFailed", {}, AuthFailed),
            ("403 No", "AuthenticationFailed", {"Date": "Mon, 01 Jan 2024 00:00:00 GMT"}, Unusable),
            ("404 No", "ContainerNotFound", {}, Unusable),
            ("409 No", "BlobImmutableDueToPolicy", {}, Conflict),
            ("412 No", "LeaseIdMissing", {}, Conflict),
            # Azurite takes block names of any length; Azure only those as long as those that are there
            ("400 No", "InvalidBlobOrBlock", {}, Conflict),
        )
    )
    repeatable = (
        ("Get Block List", "progress"),
        ("Get Blob Properties", "delete"),
        ("Put Block List", "abort"),
        ("Delete Blob", "delete"),
    )
    busy_code = "ServerBusy"

    def rig(self, server):
        return rig(server)

    def remote(self, it, prefix, **more):
        return it.remote(prefix, **more)

    def busy(self, seconds=None):
        return refusal("503 Busy", "ServerBusy", **({"Retry_After": str(seconds)} if seconds else {}))

    async def described(self, it, key):
        blob = await it.blob(key)
        settings = blob.content_settings
        return Described(blob.metadata, settings.content_type, settings.content_disposition)

    def names_kept(self, record):
        return {name.removeprefix("meta:") for name in record["properties"] if name.startswith("meta:")}

    async def unfinished(self, it, prefix, key):
        return [name for name in await it.names() if name == key]

    def check_failures(self, failures):
        assert len(failures) == 1 and isinstance(failures[0], Transient | OutOfStep)


@pytest.mark.parametrize("operation", ["Get Block List", "Get Blob Properties", "Put Block List", "Delete Blob"])
@pytest.mark.parametrize("how", ["refuse", "lose"])
@pytest_twisted.ensureDeferred
async def test_an_abort_that_fails_anywhere_may_be_repeated_and_leaves_nothing(server, prefix, operation, how):
    async with rig(server) as it:
        remote = it.remote(prefix)
        await remote.initiate_upload(U1, len(BIG), {})
        await write(remote, U1, BIG, 1)
        it.proxy.trouble(operation, how)
        if operation == "Get Blob Properties":
            await it.put(f"{prefix}/{U1}", b"theirs")  # only looked for if the key is taken
        with pytest.raises(Transient):
            await remote.abort_upload(U1)
        await it.remote(prefix).abort_upload(U1)
        assert await it.content(f"{prefix}/{U1}") == (b"theirs" if operation == "Get Blob Properties" else None)
        assert not [name for name in await it.names() if name == f"{prefix}/{U1}"] or operation == "Get Blob Properties"


@pytest.mark.parametrize("operation", ["Get Blob Properties", "Delete Blob"])
@pytest.mark.parametrize("how", ["refuse", "lose"])
@pytest_twisted.ensureDeferred
async def test_a_deletion_that_fails_anywhere_may_be_repeated(server, prefix, operation, how):
    async with rig(server) as it:
        remote = it.remote(prefix)
        stored = await upload(remote, U1, SMALL)
        it.proxy.trouble(operation, how)
        with pytest.raises(Transient):
            await remote.delete_object(U1)
        assert await remote.delete_object(U1) is (operation == "Get Blob Properties" or how == "refuse")
        assert await it.content(stored.key) is None


@pytest_twisted.ensureDeferred
async def test_a_small_upload_takes_one_request_and_others_one_more_than_they_have_parts(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix)
        await remote.initiate_upload(U1, len(SMALL), {})
        await remote.write_chunk(U1, 0, BytesRegion(SMALL), len(SMALL))
        await remote.finalize_upload(U1)
        assert it.proxy.requests == {"Put Blob": 1}
        it.proxy.requests.clear()
        await upload(remote, U2, BIG)
        assert it.proxy.requests == {"Put Block": 3, "Put Block List": 1}


@pytest_twisted.ensureDeferred
async def test_a_block_whose_answer_was_lost_needs_not_be_sent_again(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix)
        it.proxy.trouble("Put Block", "lose")
        await remote.initiate_upload(U1, len(BIG), {})
        with pytest.raises(Transient):
            await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        assert await remote.get_upload_progress(U1) == PART


@pytest_twisted.ensureDeferred
async def test_what_was_changed_on_the_way_is_refused_by_the_store(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix)
        for upload_id, operation, data in ((U1, "Put Blob", SMALL), (U2, "Put Block", BIG)):
            it.proxy.trouble(operation, "corrupt")
            with pytest.raises(RemoteError) as caught:
                await upload(remote, upload_id, data)
            # Azure says Md5Mismatch, which the matrix above has
            assert caught.value.code == "InvalidOperation" and caught.value.status == 400
            assert await remote.get_upload_progress(upload_id) == 0


@pytest.mark.parametrize(("operation", "data"), [("Put Blob", SMALL), ("Put Block", BIG), ("Put Block List", BIG)])
@pytest_twisted.ensureDeferred
async def test_silence_ends_with_the_time_out(server, prefix, operation, data):
    async with rig(server) as it:
        it.proxy.trouble(operation, "stall")
        remote = it.remote(prefix, timeout="0.3")
        with pytest.raises(Transient) as caught:
            await upload(remote, U1, data)
        assert caught.value.code == "TimedOut"
        it.proxy.calm()
        assert await it.content((await persist(it.remote(prefix), U1, data))[0].key) == data


@pytest_twisted.ensureDeferred
async def test_a_store_that_takes_no_bytes_any_more_ends_with_the_time_out(server, prefix):
    async with rig(server) as it:
        it.proxy.trouble("Put Blob", "stall")
        remote = it.remote(prefix, timeout="0.3", part_size=64 * MIB)
        region = CountingRegion(64 * MIB)
        await remote.initiate_upload(U1, region.size, {})
        with pytest.raises(Transient) as caught:
            await remote.write_chunk(U1, 0, region, region.size)
        assert caught.value.code == "TimedOut" and region.passes < 2 * region.size  # one of them for the digest


@pytest_twisted.ensureDeferred
async def test_a_store_that_is_away_is_named_without_a_secret(server, prefix):
    async with rig(server) as it:
        environ = {"AZURE_STORAGE_SAS_TOKEN": "?sv=2024-11-04&sig=c2VjcmV0c2VjcmV0"}
        remote = it.remote(prefix, environ=environ, endpoint="http://127.0.0.1:1/devstoreaccount1")
        with pytest.raises(Transient) as caught:
            await remote.probe()
        assert caught.value.code == "ConnectionRefusedError"
        assert caught.value.reason == "Put Block: ConnectionRefusedError" and "sig" not in repr(caught.value)


@pytest_twisted.ensureDeferred
async def test_what_reading_the_spool_fails_with_comes_through(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix, part_size=MIB)
        for upload_id, size in ((U1, MIB), (U2, 2 * MIB)):  # one blob, one block of several
            await remote.initiate_upload(upload_id, size, {})
            for failing_at in (0, MIB // 2, MIB, MIB + MIB // 2):  # when it is digested, and when it is sent
                region = CountingRegion(MIB, failing_at)
                with pytest.raises(RegionLost):
                    await remote.write_chunk(upload_id, 0, region, region.size)
                assert region.lent == 0
                assert await remote.get_upload_progress(upload_id) == 0


@pytest_twisted.ensureDeferred
async def test_a_call_that_is_given_up_ends_at_once_and_reads_no_more(server, prefix):
    async with rig(server) as it:
        it.proxy.trouble("Put Blob", "stall")
        remote = it.remote(prefix, timeout="2", part_size=64 * MIB)
        region = CountingRegion(64 * MIB)
        await remote.initiate_upload(U1, region.size, {})
        writing = remote.write_chunk(U1, 0, region, region.size)
        while not it.proxy.requests:
            await deferLater(reactor, 0.001)
        writing.cancel()
        with pytest.raises(CancelledError):
            await writing
        read = region.passes
        await remote.close()
        assert region.passes == read


@pytest.mark.parametrize("size", [256 * MIB, 256 * MIB + 1], ids=["Put Blob", "Put Block"])
@pytest_twisted.ensureDeferred
async def test_the_largest_body_takes_no_more_memory_than_a_piece(server, prefix, size):
    async with rig(server) as it:
        # past the proxy, which holds what it hasn't passed on
        remote = it.remote(prefix, part_size=256 * MIB, timeout="60", endpoint=server.endpoint())
        region = CountingRegion(256 * MIB)
        await remote.initiate_upload(U1, size, {})
        tracemalloc.start()
        try:
            await remote.write_chunk(U1, 0, region, region.size)
            assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        finally:
            tracemalloc.stop()
        assert region.largest <= 256 << 10 and region.passes == 2 * region.size and region.lent == 0
        assert await remote.get_upload_progress(U1) == region.size


@pytest_twisted.ensureDeferred
async def test_connections_are_bounded(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix)
        ids = [f"{index:032x}" for index in range(20)]
        for one in ids:
            await remote.initiate_upload(one, PART, {})
        for each in [remote.write_chunk(one, 0, CountingRegion(PART), PART) for one in ids]:
            await each
        assert it.proxy.most <= 6  # four parts at once, and two beside


# others write, too


@pytest_twisted.ensureDeferred
async def test_blocks_of_a_foreign_writer_get_into_no_blob_of_ours_and_stay_when_we_give_up(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix)
        key = await remote.initiate_upload(U1, len(BIG), {})
        await write(remote, U1, BIG, 1)
        it.blobs.get_blob_client(key).stage_block("f" * 59, b"foreign")
        assert await remote.get_upload_progress(U1) == PART
        await remote.abort_upload(U1)
        _, left = it.blobs.get_blob_client(key).get_block_list("uncommitted")
        assert "f" * 59 in [block.id for block in left]
        assert await it.content((await upload(remote, U1, BIG)).key) == BIG


@pytest_twisted.ensureDeferred
async def test_a_foreign_commit_parks_the_replica_or_is_replaced_as_told(server, prefix):
    async with rig(server) as it:
        for overwrite in ("refuse", "replace"):
            remote = it.remote(f"{prefix}{overwrite}", overwrite=overwrite)
            key = await remote.initiate_upload(U1 if overwrite == "refuse" else U2, len(BIG), {})
            upload_id = U1 if overwrite == "refuse" else U2
            await write(remote, upload_id, BIG)
            theirs = it.blobs.get_blob_client(key)
            theirs.stage_block("f" * 59, b"foreign")
            theirs.commit_block_list(["f" * 59])  # which drops all blocks that it doesn't name
            if overwrite == "refuse":
                with pytest.raises(Conflict):
                    await remote.finalize_upload(upload_id)
                assert await it.content(key) == b"foreign"
            else:
                with pytest.raises(NotThere):
                    await remote.finalize_upload(upload_id)
                stored, _ = await persist(remote, upload_id, BIG)
                assert await it.content(stored.key) == BIG


@pytest_twisted.ensureDeferred
async def test_two_daemons_that_finish_the_same_upload_make_one_blob(server, prefix):
    async with rig(server) as it:
        first = it.remote(prefix)
        it.journal = type(it.journal)()
        second = it.remote(prefix)
        for each in (first, second):
            await each.initiate_upload(U1, len(BIG), {})
            await write(each, U1, BIG)
        made = [each.finalize_upload(U1) for each in (first, second)]
        one, other = [await each for each in made]
        assert one == other and await it.content(one.key) == BIG


@pytest_twisted.ensureDeferred
async def test_of_two_uploads_with_one_key_the_first_to_finish_stays(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix, key="{metadata[name]}")
        theirs = BIG[::-1]
        for upload_id, data in ((U1, BIG), (U2, theirs)):
            await remote.initiate_upload(upload_id, len(data), {"name": b"same"})
        for upload_id, data in ((U1, BIG), (U2, theirs)):
            await write(remote, upload_id, data)
        stored = await remote.finalize_upload(U2)
        with pytest.raises(Conflict):
            await remote.finalize_upload(U1)
        await remote.abort_upload(U1)
        assert await it.content(stored.key) == theirs
        assert await remote.delete_object(U1) is False and await remote.delete_object(U2) is True


@pytest_twisted.ensureDeferred
async def test_a_blob_that_changes_while_it_is_deleted_stays(server, prefix):
    async with rig(server) as it:
        remote = it.remote(prefix)
        stored = await upload(remote, U1, SMALL)
        it.proxy.trouble("Delete Blob", "answer", answer=refusal("412 No", "ConditionNotMet"))
        with pytest.raises(Transient):
            await remote.delete_object(U1)
        it.proxy.trouble("Delete Blob", "answer", answer=refusal("409 No", "BlobImmutableDueToPolicy"))
        with pytest.raises(Unusable):
            await remote.delete_object(U1)
        assert await it.content(stored.key) == SMALL


@pytest.mark.parametrize("step", [1000, 256 << 10, MIB, -1])
@pytest_twisted.ensureDeferred
async def test_a_body_is_read_in_steps_of_any_size_and_ends(step):
    data = BIG * 5
    body = BlobBody(reactor, BytesRegion(data))
    assert len(body) == len(data) and body.tell() == 0
    read = await deferToThread(lambda: b"".join(iter(lambda: body.read(step), b"")))
    assert read == data and body.tell() == len(data)


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_given_up_is_read_no_more_and_its_region_given_back_once_no_thread_is_in_it():
    region, entered, leave = CountingRegion(2 * STEP), Event(), Event()
    take = region.take
    region.take = lambda size: (entered.set(), leave.wait(300), take(size))[2]
    body = BlobBody(reactor, region)
    reading = deferToThread(body.read, STEP)
    await deferToThread(entered.wait, 30)
    body.give_up()
    assert region.lent == 1
    leave.set()
    assert len(await reading) == STEP
    while region.lent:
        await deferLater(reactor, 0)
    with pytest.raises(GivenUp):
        await deferToThread(body.read, STEP)
    body.give_up()
    assert region.passes == STEP


@pytest_twisted.ensureDeferred
async def test_a_region_that_is_shorter_than_it_says_fails_rather_than_keep_the_store_waiting():
    region = BytesRegion(BIG)
    region.size += 10
    for read in (BlobBody.md5, lambda body: b"".join(iter(lambda: body.read(PART), b""))):
        body = BlobBody(reactor, region)
        with pytest.raises(RegionLost):
            await deferToThread(read, body)
        assert isinstance(body.failure, RegionLost)
