"""Replicas in S3 servers: moto, and where they are installed versitygw and rclone, which check signatures."""

from __future__ import annotations

import hashlib
import time

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.defer import gatherResults
from zope.interface import implementer

from resumable.model import keys
from resumable.remotes.errors import AuthFailed, Conflict, NotThere, OutOfStep, Permanent, Transient, Unusable
from resumable.remotes.interfaces import IJournal, Part
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.plan import PartLimits, Plan, Step
from resumable.remotes.regions import BytesRegion
from resumable.remotes.s3.credentials import StaticCredentials
from resumable.remotes.s3.endpoint import GENERIC
from resumable.remotes.s3.records import S3ObjectOptions
from resumable.remotes.s3.remote import S3Remote
from tests.remotes.s3_rig import MIB, rig
from tests.remotes.s3_servers import BUCKET, RCLONE, VERSITYGW, Server, started
from tests.remotes.simple_engine import upload

U1, U2 = "1" * 32, "2" * 32
PART = 5 * MIB
BIG = b"".join(hashlib.sha256(bytes([i])).digest() * (PART // 32) for i in range(2)) + b"the rest"


@implementer(IJournal)
class PlainJournal:
    """One without a place for parts."""

    def __init__(self) -> None:
        inner = MemoryJournal()
        self.load, self.save = inner.load, inner.save


@pytest.fixture(scope="module", params=["moto", VERSITYGW, RCLONE])
def server(request, tmp_path_factory):
    with started(request.param, tmp_path_factory.mktemp("buckets") / "root") as running:
        yield running


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    with started("moto", tmp_path_factory.mktemp("unused")) as running:
        yield running


@pytest.fixture(scope="module", params=["moto", VERSITYGW])
def full(request, tmp_path_factory):
    """Servers that have the whole of S3."""
    with started(request.param, tmp_path_factory.mktemp("buckets") / "root") as running:
        yield running


@pytest.fixture(scope="module", params=[VERSITYGW])
def versitygw_only(tmp_path_factory):
    with started("versitygw", tmp_path_factory.mktemp("buckets") / "root") as running:
        yield running


@pytest.fixture
def prefix(request):
    return hashlib.sha256(request.node.name.encode()).hexdigest()[:12]


@pytest.mark.parametrize("size", [0, 1, 4096, 300_000, PART])
@pytest_twisted.ensureDeferred
async def test_a_small_upload_needs_one_request(server: Server, prefix: str, size: int):
    async with rig(server) as it:
        data = BIG[:size]
        remote = it.remote(template=keys.parse(prefix=prefix), part_size=PART)
        stored = await upload(remote, U1, data, {"filename": b"a.txt", "filetype": b"text/plain"})
        assert it.proxy.requests == {"PutObject": 1}
        assert (
            stored.key == f"{prefix}/{U1}" and stored.size == size and stored.location == f"s3://{BUCKET}/{stored.key}"
        )
        assert await it.content(stored.key) == data
        head = await it.client.head_object(stored.key)
        assert head.metadata["resumable-upload-id"] == U1 and head.headers["content-type"] == "text/plain"
        assert await remote.get_upload_progress(U1) == size


@pytest_twisted.ensureDeferred
async def test_a_large_upload_needs_a_request_for_each_part_and_two(server: Server, prefix: str):
    async with rig(server) as it:
        remote = it.remote(template=keys.parse(prefix=prefix), part_size=PART)
        stored = await upload(remote, U1, BIG)
        assert it.proxy.requests == {"CreateMultipartUpload": 1, "UploadPart": 3, "CompleteMultipartUpload": 1}
        assert await it.content(stored.key) == BIG
        assert (await it.client.head_object(stored.key)).metadata["resumable-upload-id"] == U1
        assert await remote.finalize_upload(U1) == stored
        assert await it.remote().finalize_upload(U1) == stored
        assert await remote.get_upload_progress(U1) == len(BIG)
        assert sum(it.proxy.requests.values()) == 3 + 2 + 2  # and what this test has looked at
        assert await it.unfinished() == []


@pytest.mark.parametrize("key", ["a//b", "e/../f", "p%2Fq", "q?uery#frag", "grüße/日本", "sp ace+plus", "a;b&c=d"])
@pytest_twisted.ensureDeferred
async def test_odd_keys_go_there_and_back(full: Server, key: str):
    if full.name == "versitygw" and key in ("a//b", "e/../f"):
        pytest.skip("versitygw keeps objects as files, which have no such names")
    async with rig(full) as it:
        await it.client.put_object(key, b"content of " + key.encode())
        assert await it.content(key) == b"content of " + key.encode()
        multipart = await it.client.init_multipart_upload(key)
        uploads = (await it.client.list_multipart_uploads()).uploads
        assert [(each.key, each.upload_id) for each in uploads] == [(key, multipart)]
        if full.name != "moto":  # whose multiparts are all of 2010
            assert abs(uploads[0].initiated - time.time()) < 3600
        await it.client.abort_multipart_upload(key, multipart)
        await it.client.delete_object(key)
        with pytest.raises(NotThere):
            await it.client.head_object(key)


@pytest_twisted.ensureDeferred
async def test_after_a_restart_the_store_is_asked_what_it_has(full: Server, prefix: str):
    async with rig(full) as it:
        remote = it.remote(template=keys.parse(prefix=prefix), part_size=PART)
        await remote.initiate_upload(U1, len(BIG), {})
        assert await remote.get_upload_progress(U1) == 0
        await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        await remote.write_chunk(U1, 2 * PART, BytesRegion(BIG[2 * PART :]), len(BIG) - 2 * PART)
        again = it.remote(template=keys.parse(prefix=prefix), part_size=7 * MIB)
        assert await again.get_upload_progress(U1) == PART
        assert await again.confirmed_parts(U1) == [Part(1, 0, PART), Part(3, 2 * PART, len(BIG) - 2 * PART)]
        with pytest.raises(OutOfStep) as caught:
            await again.finalize_upload(U1)
        assert caught.value.progress == PART
        await again.write_chunk(U1, PART, BytesRegion(BIG[PART : 2 * PART]), PART)
        assert await it.content((await again.finalize_upload(U1)).key) == BIG


@pytest_twisted.ensureDeferred
async def test_parts_that_others_wrote_or_took_away_are_not_confirmed(full: Server, prefix: str):
    async with rig(full) as it:
        remote = it.remote(template=keys.parse(prefix=prefix), part_size=PART)
        key = await remote.initiate_upload(U1, len(BIG), {})
        await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        multipart = (await it.client.list_multipart_uploads(key)).uploads[0].upload_id
        checksum = remote._store.algorithm(await remote._records.started(U1))
        await it.client.upload_part(key, multipart, 2, BytesRegion(BIG[:PART]), algorithm=checksum)
        assert await remote.get_upload_progress(U1) == PART
        await it.client.upload_part(key, multipart, 1, BytesRegion(BIG[PART : 2 * PART]), algorithm=checksum)
        assert await remote.get_upload_progress(U1) == 0
        await it.client.abort_multipart_upload(key, multipart)
        with pytest.raises(NotThere):
            await remote.get_upload_progress(U1)
        assert await remote.initiate_upload(U1, len(BIG), {}) == key
        assert await remote.get_upload_progress(U1) == 0
        assert await it.content((await upload(remote, U1, BIG)).key) == BIG


@pytest_twisted.ensureDeferred
async def test_parts_may_be_written_several_at_once_and_make_one_multipart(full: Server, prefix: str):
    for journal in (MemoryJournal(), PlainJournal()):
        async with rig(full) as it:
            it.journal = journal
            template = keys.parse(prefix=f"{prefix}-{type(journal).__name__}")
            remote = it.remote(template=template, part_size=PART)
            await remote.initiate_upload(U1, len(BIG), {})
            parts = list((await remote.part_plan(U1)).parts(len(BIG)))
            await gatherResults(
                remote.write_chunk(U1, part.offset, BytesRegion(BIG[part.offset : part.end]), part.size)
                for part in reversed(parts)
            )
            assert await remote.confirmed_parts(U1) == parts
            assert await it.content((await remote.finalize_upload(U1)).key) == BIG
            assert it.proxy.requests["CreateMultipartUpload"] == 1


@pytest_twisted.ensureDeferred
async def test_a_deferred_length_is_given_before_the_last_part(full: Server, prefix: str):
    async with rig(full) as it:
        remote = it.remote(template=keys.parse(prefix=prefix), part_size=PART)
        await remote.initiate_upload(U1, None, {})
        await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        with pytest.raises(OutOfStep):
            await remote.finalize_upload(U1)
        await remote.write_chunk(U1, PART, BytesRegion(BIG[PART : 2 * PART]), PART)
        await remote.initiate_upload(U1, len(BIG), {})
        with pytest.raises(ValueError):
            await remote.initiate_upload(U1, len(BIG) + 1, {})
        await remote.write_chunk(U1, 2 * PART, BytesRegion(BIG[2 * PART :]), len(BIG) - 2 * PART)
        assert await it.content((await remote.finalize_upload(U1)).key) == BIG


@pytest_twisted.ensureDeferred
async def test_what_breaks_the_contract_is_refused(moto: Server):
    async with rig(moto) as it:
        remote = it.remote(part_size=PART, template=keys.parse(prefix="contract"))
        with pytest.raises(NotThere):
            await remote.write_chunk(U1, 0, BytesRegion(b"x"), 1)
        with pytest.raises(NotThere):
            await remote.finalize_upload(U1)
        await remote.initiate_upload(U1, 2 * PART, {})
        for offset, size in ((1, PART), (0, PART - 1), (PART, PART + 1), (0, 3 * PART)):
            with pytest.raises(ValueError):
                await remote.write_chunk(U1, offset, BytesRegion(bytes(size)), size)
        with pytest.raises(Permanent):
            await remote.initiate_upload(U2, 60 * 10**12, {})
        assert it.proxy.requests == {}


@pytest_twisted.ensureDeferred
async def test_aborting_leaves_nothing_and_may_be_repeated(full: Server, prefix: str):
    async with rig(full) as it:
        remote = it.remote(template=keys.parse(prefix=prefix), part_size=PART)
        await remote.abort_upload(U1)
        await remote.initiate_upload(U1, len(BIG), {})
        await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        assert await it.unfinished() == [f"{prefix}/{U1}"]
        await remote.abort_upload(U1)
        await it.remote().abort_upload(U1)
        assert await it.unfinished() == []
        with pytest.raises(NotThere):
            await remote.get_upload_progress(U1)
        stored = await upload(remote, U1, BIG)
        await remote.abort_upload(U1)
        assert await it.content(stored.key) == BIG


@pytest_twisted.ensureDeferred
async def test_what_another_process_begins_after_the_end_is_removed_by_repeating_it(full: Server, prefix: str):
    async with rig(full) as it:
        remote = it.remote(template=keys.parse(prefix=prefix), part_size=PART)
        stored = await upload(remote, U1, BIG)
        await remote.initiate_upload(U2, len(BIG), {})
        await remote.delete_object(U1)
        await remote.abort_upload(U2)
        for upload_id in (U1, U2):
            await it.client.init_multipart_upload(f"{prefix}/{upload_id}")
            await remote.abort_upload(upload_id)
        assert await it.unfinished() == []
        it.journal = MemoryJournal()
        await upload(it.remote(template=keys.parse(prefix=prefix), part_size=PART), U1, BIG)
        assert await remote.delete_object(U1) is True
        with pytest.raises(NotThere):
            await it.client.head_object(stored.key)


@pytest_twisted.ensureDeferred
async def test_a_foreign_object_is_not_replaced_unless_that_is_wanted(full: Server, prefix: str):
    async with rig(full) as it:
        key = f"{prefix}/{U1}"
        await it.client.put_object(key, b"somebody else's")
        for data in (b"ours", BIG):
            it.journal = MemoryJournal()
            refusing = it.remote(template=keys.parse(prefix=prefix), part_size=PART)
            with pytest.raises(Conflict):
                await upload(refusing, U1, data)
            assert await it.content(key) == b"somebody else's"
            assert await refusing.delete_object(U1) is False
            await refusing.abort_upload(U1)
        assert await it.unfinished() == []
        replacing = it.remote(template=keys.parse(prefix=prefix), part_size=PART, replace=True)
        await upload(replacing, U1, b"ours")
        assert await it.content(key) == b"ours"


@pytest_twisted.ensureDeferred
async def test_where_the_store_knows_no_conditions_it_is_asked_first_if_keys_can_meet(moto: Server):
    async with rig(moto) as it:
        template = keys.parse("{metadata[filename]}", "unconditional")
        remote = it.remote(dialect=evolve(GENERIC), template=template, part_size=PART)
        await upload(remote, U1, b"first", {"filename": b"x"})
        assert it.proxy.requests == {"HeadObject": 1, "PutObject": 1}
        for data in (b"second", BIG):
            with pytest.raises(Conflict):
                await upload(remote, U2, data, {"filename": b"x"})
            await remote.abort_upload(U2)
        assert await it.content("unconditional/x") == b"first"


@pytest_twisted.ensureDeferred
async def test_only_our_own_object_is_deleted(server: Server, prefix: str):
    async with rig(server) as it:
        remote = it.remote(template=keys.parse(prefix=prefix), part_size=PART)
        assert await remote.delete_object(U1) is False
        stored = await upload(remote, U1, b"ours")
        assert await remote.delete_object(U1) is True
        assert await remote.delete_object(U1) is False
        with pytest.raises(NotThere):
            await it.client.head_object(stored.key)
        await upload(remote, U2, b"ours")
        await it.client.put_object(f"{prefix}/{U2}", b"theirs")
        assert await remote.delete_object(U2) is False


@pytest_twisted.ensureDeferred
async def test_the_sweeper_sees_what_is_unfinished_and_spares_what_is_in_use(full: Server, prefix: str):
    async with rig(full) as it:
        remote = it.remote(template=keys.parse(prefix=prefix), part_size=PART)
        key = await remote.initiate_upload(U1, len(BIG), {})
        stray = await it.client.init_multipart_upload(key)
        other = await it.client.init_multipart_upload(f"{prefix}/unknown")
        await it.client.init_multipart_upload(f"elsewhere-{prefix}")
        await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        found, page = [], await remote.list_unfinished(1, None)
        while page:
            found += page
            page = await remote.list_unfinished(1, page[-1])
        assert sorted(each.key for each in found) == sorted([key, key, f"{prefix}/unknown"])
        assert {stray, other} < {each.handle for each in found}
        for each in found:
            in_use = each.handle not in (stray, other)
            assert await remote.discard(each, U1, True) is not in_use
            assert await remote.discard(each, U1, False) is not in_use
        left = [each.key for each in await remote.list_unfinished(100, None)]
        assert left == [key]
        await remote.abort_upload(U1)
        uploads = (await it.client.list_multipart_uploads()).uploads
        for each in uploads:
            await it.client.abort_multipart_upload(each.key, each.upload_id)


@pytest_twisted.ensureDeferred
async def test_a_probe_leaves_nothing(full: Server):
    async with rig(full) as it:
        await it.remote().probe()
        assert await it.unfinished() == []


@pytest_twisted.ensureDeferred
async def test_a_probe_removes_what_one_that_died_has_begun_a_day_ago(versitygw_only: Server, prefix: str):
    async with rig(versitygw_only) as it:
        template = keys.parse(prefix=prefix)
        await it.client.init_multipart_upload(f"{prefix}/.resumable-probe", {})
        await it.remote(template=template).probe()
        assert f"{prefix}/.resumable-probe" in await it.unfinished()
        assert await it.remote(template=template).list_unfinished(10, None) == []
        later = S3Remote(
            it.client,
            it.journal,
            it.pool,
            lambda: time.time() + 90_000,
            dialect=versitygw_only.dialect,
            template=template,
        )
        await later.probe()
        assert f"{prefix}/.resumable-probe" not in await it.unfinished()


@pytest_twisted.ensureDeferred
async def test_a_wrong_secret_is_told_at_the_probe(server: Server):
    if not server.checks:
        pytest.skip(f"{server.name} checks no signatures")
    async with rig(server, StaticCredentials("an-access-key", "the-wrong-secret")) as it:
        with pytest.raises(AuthFailed) as caught:
            await it.remote().probe()
        assert "the-wrong-secret" not in f"{caught.value.reason}{caught.value.advice}"


@pytest_twisted.ensureDeferred
async def test_a_missing_bucket_is_told_at_the_probe(full: Server):
    async with rig(full) as it:
        endpoint = it.client.endpoint
        it.client.requests.endpoint = evolve(endpoint, base="/not-there", bucket="not-there")
        with pytest.raises(Unusable) as caught:
            await it.remote().probe()
        assert caught.value.code == "NoSuchBucket" and "bucket" in caught.value.advice


@pytest_twisted.ensureDeferred
async def test_parts_are_listed_page_by_page_and_gaps_are_seen(versitygw_only: Server, prefix: str):
    async with rig(versitygw_only) as it:
        multipart = await it.client.init_multipart_upload(prefix)
        for number in (1, 2, 4, 7, 8):
            await it.client.upload_part(prefix, multipart, number, b"%d" % number)
        found, marker, pages = [], 0, 0
        while marker is not None:
            page = await it.client.list_parts(prefix, multipart, marker, limit=2)
            found += page.parts
            marker, pages = page.marker, pages + 1
        assert [(each.number, each.size) for each in found] == [(number, 1) for number in (1, 2, 4, 7, 8)]
        assert pages == 3
        await it.client.abort_multipart_upload(prefix, multipart)


@pytest_twisted.ensureDeferred
async def test_more_parts_than_fit_a_page_are_all_compared(versitygw_only: Server):
    # moto takes a part's number for its place in the list
    count = 1003
    async with rig(versitygw_only) as it:
        limits = PartLimits(smallest_part=1)
        remote = it.remote(
            dialect=evolve(versitygw_only.dialect, limits=limits), part_size=3, template=keys.parse(prefix="thousand")
        )
        await remote.initiate_upload(U1, 3 * count, {})
        for part in Plan((Step(3, count),)).parts(3 * count):
            if part.number not in (17, 1001):
                await remote.write_chunk(U1, part.offset, BytesRegion(b"abc"), 3)
        assert [part.number for part in await remote.confirmed_parts(U1)] == [
            number for number in range(1, count + 1) if number not in (17, 1001)
        ]
        assert await remote.get_upload_progress(U1) == 48
        assert it.proxy.requests["ListParts"] == 4
        await remote.abort_upload(U1)


@pytest_twisted.ensureDeferred
async def test_a_checksum_of_each_part_and_of_the_whole_is_compared_by_the_store(versitygw_only: Server):
    async with rig(versitygw_only) as it:
        remote = it.remote(template=keys.parse(prefix="checksums"), part_size=PART)
        stored = await upload(remote, U1, BIG)
        small = await upload(remote, U2, b"small")
        for one in (stored, small):
            assert one.checksum.startswith("crc32c:")
            head = await it.client.head_object(one.key, {"x-amz-checksum-mode": "ENABLED"})
            assert head.headers["x-amz-checksum-crc32c"] == one.checksum.removeprefix("crc32c:")


@pytest.mark.parametrize("checksum", ["md5", "none"])
@pytest_twisted.ensureDeferred
async def test_other_checksums_or_none_are_a_setting(full: Server, prefix: str, checksum: str):
    async with rig(full) as it:
        dialect = evolve(full.dialect, checksum=checksum, full_object=False)
        remote = it.remote(template=keys.parse(prefix=prefix), part_size=PART, dialect=dialect)
        assert await it.content((await upload(remote, U1, BIG)).key) == BIG


@pytest_twisted.ensureDeferred
async def test_options_of_objects_reach_the_store(moto: Server):
    async with rig(moto) as it:
        options = S3ObjectOptions("STANDARD_IA", "bucket-owner-full-control", "AES256", tags={"a b": "c"})
        remote = it.remote(options=options, part_size=PART, template=keys.parse(prefix="options"))
        for upload_id, data in ((U1, b"small"), (U2, BIG)):
            stored = await upload(remote, upload_id, data, {"filename": "Grüße.txt".encode(), "project": b"x"})
            headers = (await it.client.head_object(stored.key)).headers
            assert headers["x-amz-storage-class"] == "STANDARD_IA"
            assert headers["x-amz-server-side-encryption"] == "AES256"
            assert headers["x-amz-meta-project"] == "x"
            assert "Gr%C3%BC" in headers["content-disposition"]
            answer, _ = await it.client.requests.send("GetObject", "GET", stored.key, [("tagging", "")])
            assert b"<Key>a b</Key><Value>c</Value>" in answer.body


@pytest_twisted.ensureDeferred
async def test_a_part_that_is_too_small_is_told_with_what_to_change(versitygw_only: Server):
    async with rig(versitygw_only) as it:
        dialect = evolve(versitygw_only.dialect, limits=PartLimits(smallest_part=1))
        remote = it.remote(dialect=dialect, part_size=100, template=keys.parse(prefix="toosmall"))
        with pytest.raises(Permanent) as caught:
            await upload(remote, U1, bytes(250))
        assert "part size" in caught.value.advice


@pytest.mark.parametrize(("checksum", "sign_bodies"), [("crc32c", False), ("md5", False), ("none", True)])
@pytest_twisted.ensureDeferred
async def test_bytes_that_change_on_the_way_are_refused_and_sent_again(
    versitygw_only: Server, checksum: str, sign_bodies: bool
):
    """By the store, with whichever of the two it is given: the checksum, or the signature of the body."""
    async with rig(versitygw_only, sign_bodies=sign_bodies) as it:
        dialect = evolve(versitygw_only.dialect, checksum=checksum, full_object=checksum == "crc32c")
        template = keys.parse(prefix=f"corrupted-{checksum}")
        remote = it.remote(part_size=PART, template=template, dialect=dialect)
        await remote.initiate_upload(U1, len(BIG), {})
        it.proxy.trouble("UploadPart", "corrupt")
        with pytest.raises(Transient):
            await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        assert await it.content((await upload(remote, U1, BIG)).key) == BIG
        await remote.initiate_upload(U2, 5, {})
        it.proxy.trouble("PutObject", "corrupt")
        with pytest.raises(Transient):
            await remote.write_chunk(U2, 0, BytesRegion(b"small"), 5)
