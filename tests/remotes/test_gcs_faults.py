"""Google: what goes wrong between us and a store, over a server that takes nothing wrong, emulators, and a proxy."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from attrs import evolve

from resumable.model import keys
from resumable.remotes.errors import AuthFailed, Conflict, NotThere, Throttled, Transient, Unusable
from resumable.remotes.interfaces import OutOfStep
from resumable.remotes.regions import BytesRegion
from tests.remotes.counting_region import CountingRegion
from tests.remotes.fault_suite import MIB, SMALL, U1, U2, Described, HttpFaultSuite
from tests.remotes.gcs_rig import QUANTUM, rig
from tests.remotes.gcs_servers import EMULATOR, FAKE_GCS, Bent, started
from tests.remotes.s3_proxy import answer
from tests.remotes.simple_engine import persist, upload

PART = MIB
BIG = bytes(range(256)) * (2 * PART // 256) + b"the rest"
ROUND = BIG[: 2 * PART]


@pytest.fixture(scope="module", params=["ours", EMULATOR, FAKE_GCS])
def server(request, tmp_path_factory):
    with started(request.param, tmp_path_factory.mktemp("buckets") / "root") as running:
        yield running


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """Only ours: what is asked for here no emulator does."""
    with started("ours", tmp_path_factory.mktemp("buckets") / "root") as running:
        yield running


@pytest.fixture
def template(request):
    return keys.parse(prefix="".join(c for c in request.node.name if c.isalnum())[-80:])


SLOW = answer("503 Slow Down", Retry_After="3")
MATRIX = [
    ("Insert", "refuse", {}),
    ("Insert", "lose", {}),
    ("Insert", "answer", {"answer": SLOW}),
    ("Insert", "answer", {"answer": answer("500 Oh")}),
    ("Insert", "replace", {"answer": answer("200 OK")}),
    ("StartSession", "refuse", {}),
    ("StartSession", "lose", {}),
    ("StartSession", "answer", {"answer": answer("429 Slow", Retry_After="3")}),
    ("StartSession", "replace", {"answer": answer("200 OK")}),
    ("Chunk", "refuse", {}),
    ("Chunk", "lose", {}),
    ("Chunk", "reset", {"after": 600_000}),
    ("Chunk", "answer", {"answer": SLOW}),
    ("Chunk", "answer", {"answer": answer("404 No")}),
    ("Chunk", "answer", {"answer": answer("410 Gone")}),
    ("Chunk", "answer", {"answer": answer("499 Cancelled")}),
    ("Chunk", "answer", {"answer": answer("308 Resume", Range="bytes=1-x")}),
    ("Finish", "refuse", {}),
    ("Finish", "reset", {"after": 4}),
    ("Finish", "corrupt", {}),
    ("Finish", "lose", {}),
    ("Finish", "answer", {"answer": SLOW}),
    ("Finish", "answer", {"answer": answer("200 OK")}),
    ("Finish", "replace", {"answer": answer("200 OK", "{}")}),
    ("Finish", "answer", {"answer": answer("404 No")}),
    ("Finish", "answer", {"answer": answer("410 Gone")}),
    ("Finish", "answer", {"answer": answer("308 Resume")}),
    ("Finish", "replace", {"answer": answer("410 Gone")}),
]  # fmt: skip
TOO_LARGE = '{"error": {"message": "Custom metadata is too large", "errors": [{"reason": "invalid"}]}}'


def because(reason):
    return json.dumps({"error": {"message": "x", "errors": [{"reason": reason}]}})


class TestGcsFaults(HttpFaultSuite):
    small, begin, part, finish, look, refusable = "Insert", "StartSession", "Chunk", "Finish", "LookUp", "StartSession"
    part_size, big, many = PART, BIG, (4 * MIB, 8 * MIB)
    most_requests = 24
    matrix = MATRIX
    unwelcome = (answer("400 No", TOO_LARGE), answer("431 No"), answer("400 No"))
    refusals = (
        (answer("401 No"), AuthFailed, None),
        (answer("403 No", because("insufficientPermissions")), AuthFailed, None),
        (answer("403 No", because("rateLimitExceeded")), Throttled, None),
        (answer("400 No", because("userProjectMissing")), Unusable, None),
        (answer("404 No", '{"error": {"message": "The specified bucket does not exist."}}'), Unusable, None),
        (answer("301 Elsewhere"), Unusable, None),
    )
    repeatable = (("Ask", "progress"), ("LookUp", "delete"), ("Cancel", "abort"), ("Delete", "delete"))
    busy_code = "rateLimitExceeded"
    forbidden, right = answer("403 Forbidden"), "storage.objects.get"
    failing_at = (0, PART // 2)

    def rig(self, server, **more):
        return rig(server, **more)

    def busy(self, seconds=None):
        return answer("429 Slow", **({"Retry_After": str(seconds)} if seconds else {}))

    async def described(self, it, key):
        made = json.loads((await it.direct.send("look up", "GET", it.direct.place.object(key))).body)
        return Described(made["metadata"], made["contentType"], made.get("contentDisposition"))

    def names_kept(self, record):
        return set(record["resource"]["metadata"])

    async def unfinished(self, it, prefix, key):
        return [each for each in it.server.store.unfinished if each.startswith(prefix)]

    def check_requests(self, requests, wanted):
        # one on a connection that the store has closed is sent again; emulators heed no condition of a small one
        if set(wanted) == {self.look}:
            assert set(requests) == {self.look}
        else:
            assert requests.get(self.look, 1) == 1

    async def check_end(self, it, server, remote, operation, requests):
        assert await remote.delete_object(U1) is True
        if server.store:
            assert not server.store.refused


@pytest_twisted.ensureDeferred
async def test_after_a_chunk_that_broke_only_what_is_missing_is_sent(strict, template):
    async with rig(strict) as it:
        remote = it.remote(template=template, part_size=PART)
        await remote.initiate_upload(U1, len(BIG), {})
        strict.store.breaks = [600_000, 0]  # the second for a chunk that is sent again on a new connection
        with pytest.raises(Transient):
            await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        it.proxy.received = 0
        assert await remote.get_upload_progress(U1) == 0  # a part that isn't whole doesn't count
        await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        assert it.proxy.received == PART - 2 * QUANTUM
        stored, _ = await persist(remote, U1, BIG)
        assert await it.content(stored.key) == BIG


@pytest_twisted.ensureDeferred
async def test_a_store_that_keeps_less_than_was_sent_is_out_of_step(strict, template):
    async with rig(strict) as it:
        remote = it.remote(template=template, part_size=PART)
        await remote.initiate_upload(U1, len(BIG), {})
        await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        strict.store.keeps = QUANTUM
        with pytest.raises(OutOfStep) as caught:
            await remote.write_chunk(U1, PART, BytesRegion(BIG[PART : 2 * PART]), PART)
        assert caught.value.progress == PART == await remote.get_upload_progress(U1)
        it.proxy.received = 0
        await remote.write_chunk(U1, PART, BytesRegion(BIG[PART : 2 * PART]), PART)
        assert it.proxy.received == PART - QUANTUM
        strict.store.keeps = 0
        stored, _ = await persist(remote, U1, BIG)
        assert await it.content(stored.key) == BIG


@pytest_twisted.ensureDeferred
async def test_of_the_last_chunk_only_what_the_store_has_not_kept_is_sent_again(strict, template):
    async with rig(strict) as it:
        remote, size = it.remote(template=template, part_size=PART), PART + 2 * QUANTUM + 7
        await remote.initiate_upload(U1, size, {})
        await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        last = BytesRegion(BIG[PART:size])
        strict.store.keeps = QUANTUM
        with pytest.raises(OutOfStep) as caught:
            await remote.write_chunk(U1, PART, last, last.size)
        assert caught.value.progress == PART
        it.proxy.received = 0
        await remote.write_chunk(U1, PART, last, last.size)
        assert it.proxy.received == QUANTUM + 7
        assert await it.content((await remote.finalize_upload(U1)).key) == BIG[:size]


@pytest.mark.parametrize("how", ["lose", "refuse"])
@pytest_twisted.ensureDeferred
async def test_a_length_that_turns_out_to_be_what_is_there_is_finished_without_a_chunk(server, template, how):
    async with rig(server) as it:
        remote = it.remote(template=template, part_size=PART)
        await remote.initiate_upload(U1, None, {})
        for offset in (0, PART):
            await remote.write_chunk(U1, offset, BytesRegion(ROUND[offset : offset + PART]), PART)
        await remote.initiate_upload(U1, len(ROUND), {})
        it.proxy.trouble("Finish", how, times=2)
        with pytest.raises(Transient):
            await remote.finalize_upload(U1)
        it.proxy.calm()
        stored = await remote.finalize_upload(U1)
        assert await remote.get_upload_progress(U1) == len(ROUND)
        assert await it.content(stored.key) == ROUND


@pytest.mark.parametrize("state", ["lost", "gone", "cancelled"])
@pytest_twisted.ensureDeferred
async def test_a_session_that_is_gone_begins_anew(strict, template, state):
    async with rig(strict) as it:
        remote = it.remote(template=template, part_size=PART)
        for call in ("progress", "write"):
            await remote.initiate_upload(U1, len(BIG), {})
            await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
            await remote.write_chunk(U1, PART, BytesRegion(BIG[PART : 2 * PART]), PART)
            for session in strict.store.sessions.values():
                session.state = state
            with pytest.raises(NotThere) as caught:
                if call == "progress":
                    await remote.get_upload_progress(U1)
                else:
                    restarted = it.remote(template=template, part_size=PART)
                    await restarted.write_chunk(U1, 2 * PART, BytesRegion(BIG[2 * PART :]), len(BIG) - 2 * PART)
            assert "secret" not in str(caught.value)
            assert await remote.get_upload_progress(U1) == 0
        stored, _ = await persist(remote, U1, BIG)
        assert await it.content(stored.key) == BIG


@pytest_twisted.ensureDeferred
async def test_a_store_that_forgets_confirmed_bytes_begins_anew(strict, template):
    async with rig(strict) as it:
        remote = it.remote(template=template, part_size=PART)
        await remote.initiate_upload(U1, len(BIG), {})
        await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        for session in strict.store.sessions.values():
            del session.data[QUANTUM:]
        with pytest.raises(NotThere):
            await remote.get_upload_progress(U1)
        stored, _ = await persist(remote, U1, BIG)
        assert await it.content(stored.key) == BIG


@pytest.mark.parametrize("data", [BIG, ROUND], ids=["with a rest", "without"])
@pytest_twisted.ensureDeferred
async def test_bytes_that_change_on_the_way_never_become_an_object(strict, template, data):
    async with rig(strict) as it:
        remote = it.remote(template=template, part_size=PART)
        it.proxy.trouble("Chunk", "corrupt")
        stored, failures = await persist(remote, U1, data)
        assert len(failures) == 1 and failures[0].code == "badDigest" and isinstance(failures[0], NotThere)
        assert await it.content(stored.key) == data


@pytest_twisted.ensureDeferred
async def test_a_small_one_that_changes_on_the_way_is_refused_and_sent_again(strict, template):
    async with rig(strict) as it:
        remote = it.remote(template=template)
        it.proxy.trouble("Insert", "replace", answer=answer("400 No", '{"error": {"message": "CRC32C differs"}}'))
        stored, failures = await persist(remote, U1, SMALL)
        assert [each.code for each in failures] == ["badDigest"]
        assert await it.content(stored.key) == SMALL


@pytest_twisted.ensureDeferred
async def test_an_object_whose_checksum_is_another_is_removed_and_written_again(strict, template):
    async with rig(strict) as it:
        remote = it.remote(template=template, part_size=PART)
        strict.store.damages = True
        stored, failures = await persist(remote, U1, BIG)
        assert [type(each) for each in failures] == [NotThere]
        assert await it.content(stored.key) == BIG


@pytest_twisted.ensureDeferred
async def test_the_checksum_is_known_after_a_restart_too(server, template):
    async with rig(server) as it:
        for number, part in enumerate([(0, PART), (PART, 2 * PART), (2 * PART, len(BIG))]):
            remote = it.remote(template=template, part_size=PART)
            if not number:
                await remote.initiate_upload(U1, len(BIG), {})
            await remote.write_chunk(U1, part[0], BytesRegion(BIG[slice(*part)]), part[1] - part[0])
        stored = await it.remote(template=template).finalize_upload(U1)
        whole = await upload(it.remote(template=template, part_size=16 * MIB), U2, BIG)
        assert stored.checksum == whole.checksum and stored.checksum.startswith("crc32c:")


@pytest_twisted.ensureDeferred
async def test_an_object_of_somebody_else_conflicts_at_the_end_and_is_left(strict, template):
    async with rig(strict) as it:
        remote = it.remote(template=template, part_size=PART)
        key = await remote.initiate_upload(U1, len(ROUND), {})
        await remote.write_chunk(U1, 0, BytesRegion(ROUND[:PART]), PART)
        await it.put(key, b"theirs")
        with pytest.raises(Conflict) as caught:
            await remote.write_chunk(U1, PART, BytesRegion(ROUND[PART:]), PART)
        assert caught.value.advice
        assert await it.content(key) == b"theirs"
        replacing = it.remote(template=template, part_size=PART, replace=True)
        await replacing.abort_upload(U1)
        await upload(replacing, U1, ROUND)
        assert await it.content(key) == ROUND


@pytest_twisted.ensureDeferred
async def test_an_early_answer_is_heard_and_stops_the_body(strict, template):
    async with rig(strict) as it:
        remote = it.remote(template=template, part_size=64 * MIB)
        it.proxy.trouble("Chunk", "answer", answer=answer("503 Slow"))
        region = CountingRegion(64 * MIB)
        await remote.initiate_upload(U1, 2 * region.size, {})
        with pytest.raises(Throttled):
            await remote.write_chunk(U1, 0, region, region.size)
        assert region.passes < region.size // 2


@pytest.mark.slow
@pytest.mark.process
@pytest_twisted.ensureDeferred
async def test_a_store_that_makes_an_object_of_what_is_there_when_it_is_asked_begins_anew(tmp_path, template):
    """As fake-gcs-server does; what it made is removed."""
    with started("fake-gcs-server", tmp_path) as server:
        async with rig(evolve(server, bend=Bent)) as it:
            remote = it.remote(template=template, part_size=PART)
            key = await remote.initiate_upload(U1, len(BIG), {})
            await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
            restarted = it.remote(template=template, part_size=PART)
            with pytest.raises(NotThere):
                await restarted.get_upload_progress(U1)
            assert await it.content(key) is None
            assert await it.content((await upload(restarted, U1, BIG)).key) == BIG
