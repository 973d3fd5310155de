"""What networks and Google's store do to requests, and that the object is right in the end with few requests."""

from __future__ import annotations

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater

from resumable.httpclient.client import HttpLimits
from resumable.model import keys
from resumable.remotes.errors import AuthFailed, Conflict, NotThere, Throttled, Transient, Unusable
from resumable.remotes.interfaces import OutOfStep, RegionLost
from resumable.remotes.regions import BytesRegion
from tests.remotes.counting_region import CountingRegion
from tests.remotes.gcs_rig import MIB, QUANTUM, rig
from tests.remotes.gcs_servers import EMULATOR, FAKE_GCS, Bent, started
from tests.remotes.s3_proxy import answer
from tests.remotes.simple_engine import persist, upload

U1, U2 = "1" * 32, "2" * 32
PART = MIB
BIG = bytes(range(256)) * (2 * PART // 256) + b"the rest"
ROUND = BIG[: 2 * PART]
SMALL = b"a small one"


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


@pytest.mark.parametrize(("operation", "how", "more"), MATRIX, ids=lambda value: str(value)[:24])
@pytest_twisted.ensureDeferred
async def test_whatever_goes_wrong_once_the_object_is_right_in_the_end(server, template, operation, how, more):
    data = SMALL if operation == "Insert" else BIG
    async with rig(server) as it:
        it.proxy.trouble(operation, how, **more)
        remote = it.remote(template=template, part_size=PART)
        stored, failures = await persist(remote, U1, data)
        assert len(failures) <= 1  # none: the connection was an old one, which is tried again
        assert await it.content(stored.key) == data
        assert sum(it.proxy.requests.values()) <= 24
        assert await remote.delete_object(U1) is True
        if server.store:
            assert not server.store.refused


SAID = {"filename": "größe.txt".encode(), "filetype": b"text/css", "note": b"n" * 300}
TOO_LARGE = '{"error": {"message": "Custom metadata is too large", "errors": [{"reason": "invalid"}]}}'


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("refused", [answer("400 No", TOO_LARGE), answer("431 No"), answer("400 No")], ids=range(3))
@pytest.mark.parametrize("operation", ["Insert", "StartSession"])
@pytest_twisted.ensureDeferred
async def test_metadata_that_the_store_refuses_is_left_out(strict, template, operation, refused, times):
    data = SMALL if operation == "Insert" else BIG
    async with rig(strict) as it:
        it.proxy.trouble(operation, "answer", answer=refused, times=times)
        stored = await upload(it.remote(template=template, part_size=PART), U1, data, SAID)
        made = strict.store.objects[stored.key][1]
        assert await it.content(stored.key) == data and made["metadata"] == {"resumable-upload-id": U1}
        assert made["contentType"] == ("text/css" if times == 1 else "application/octet-stream")
        assert bool(made.get("contentDisposition")) is (times == 1)
        assert it.proxy.requests[operation] == times + 1
        assert "note" not in (await it.journal.load(U1))["resource"]["metadata"]
        assert await it.remote(template=template).delete_object(U1) is True


@pytest_twisted.ensureDeferred
async def test_what_was_refused_once_is_not_asked_for_again_after_a_restart(strict, template):
    async with rig(strict) as it:
        it.proxy.trouble("StartSession", "answer", answer=answer("400 No", TOO_LARGE))
        it.proxy.trouble("StartSession", "answer", answer=answer("503 Busy"))
        with pytest.raises(Throttled):
            await upload(it.remote(template=template, part_size=PART), U1, BIG, SAID)
        stored = await upload(it.remote(template=template, part_size=PART), U1, BIG, SAID)
        assert it.proxy.requests["StartSession"] == 3
        assert strict.store.objects[stored.key][1]["metadata"] == {"resumable-upload-id": U1}


@pytest.mark.parametrize("operation", ["Ask", "LookUp", "Cancel", "Delete"])
@pytest.mark.parametrize("how", ["refuse", "lose"])
@pytest_twisted.ensureDeferred
async def test_the_other_operations_may_be_repeated_too(strict, template, operation, how):
    async with rig(strict) as it:
        remote = it.remote(template=template, part_size=PART)
        await remote.initiate_upload(U1, len(BIG), {})
        await remote.write_chunk(U1, 0, BytesRegion(BIG[:PART]), PART)
        await upload(remote, U2, SMALL)
        it.proxy.trouble(operation, how, times=2)  # the second for a request that is sent again on a new connection
        call = {
            "Ask": lambda: remote.get_upload_progress(U1),
            "LookUp": lambda: remote.delete_object(U2),
            "Cancel": lambda: remote.abort_upload(U1),
            "Delete": lambda: remote.delete_object(U2),
        }[operation]
        with pytest.raises(Transient):
            await call()
        it.proxy.calm()
        await call()
        await remote.abort_upload(U1)
        assert not [key for key in strict.store.unfinished if key.startswith(template.prefix)]


@pytest_twisted.ensureDeferred
async def test_a_lost_answer_to_the_end_is_looked_up_before_it_is_asked_again(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template, part_size=PART)
        it.proxy.trouble("Finish", "lose", times=2)
        with pytest.raises(Transient):
            await upload(remote, U1, BIG)
        again = it.remote(template=template)
        it.proxy.calm()
        it.proxy.requests.clear()
        stored = await again.finalize_upload(U1)
        assert set(it.proxy.requests) == {"LookUp"}
        assert await again.finalize_upload(U1) == stored
        assert stored.size == len(BIG) and await again.get_upload_progress(U1) == len(BIG)


@pytest_twisted.ensureDeferred
async def test_a_lost_answer_is_found_out_by_asking_for_the_progress_too(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template, part_size=PART)
        it.proxy.trouble("Finish", "lose", times=2)
        with pytest.raises(Transient):
            await upload(remote, U1, BIG)
        it.proxy.calm()
        assert await remote.get_upload_progress(U1) == len(BIG)
        assert await remote.delete_object(U1) is True


@pytest_twisted.ensureDeferred
async def test_a_lost_answer_of_a_small_one_finds_our_own_object_there(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template)
        it.proxy.trouble("Insert", "lose")
        await remote.initiate_upload(U1, len(SMALL), {})
        with pytest.raises(Transient):
            await remote.write_chunk(U1, 0, BytesRegion(SMALL), len(SMALL))
        await it.remote(template=template).write_chunk(U1, 0, BytesRegion(SMALL), len(SMALL))
        assert it.proxy.requests.get("LookUp", 1) == 1
        assert (await remote.finalize_upload(U1)).size == len(SMALL)


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
async def test_the_pause_that_a_store_asks_for_is_passed_on(strict, template):
    async with rig(strict) as it:
        remote = it.remote(template=template)
        it.proxy.trouble("Insert", "answer", answer=answer("429 Slow", Retry_After="7"))
        with pytest.raises(Throttled) as caught:
            await upload(remote, U1, SMALL)
        assert caught.value.retry_after == 7.0 and caught.value.code == "rateLimitExceeded"


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


@pytest_twisted.ensureDeferred
async def test_a_stall_ends_with_the_time_out_of_the_clock(strict, template):
    clock = Clock()
    async with rig(strict, limits=HttpLimits(idle_timeout=30.0), clock=clock) as it:
        remote = it.remote(template=template, part_size=PART)
        for operation, data in (("Insert", SMALL), ("Chunk", BIG), ("Finish", BIG)):
            it.proxy.requests.clear()
            it.proxy.trouble(operation, "stall")
            outcome: list[object] = []
            Deferred.fromCoroutine(upload(remote, U1 if data is BIG else U2, data)).addBoth(outcome.append)
            while not it.proxy.requests.get(operation):
                await deferLater(reactor, 0.001)
            assert not outcome
            for _ in range(12):
                clock.advance(15)
                await deferLater(reactor, 0.001)
            while not outcome:
                await deferLater(reactor, 0.001)
            assert outcome[0].check(Transient) and outcome[0].value.code == "TimedOut"
            it.proxy.calm()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("401 No", "", AuthFailed),
        ("403 No", '{"error": {"message": "x", "errors": [{"reason": "insufficientPermissions"}]}}', AuthFailed),
        ("403 No", '{"error": {"message": "x", "errors": [{"reason": "rateLimitExceeded"}]}}', Throttled),
        ("400 No", '{"error": {"message": "x", "errors": [{"reason": "userProjectMissing"}]}}', Unusable),
        ("404 No", '{"error": {"message": "The specified bucket does not exist."}}', Unusable),
        ("301 Elsewhere", "", Unusable),
    ],
)
@pytest_twisted.ensureDeferred
async def test_refusals_are_told_apart(strict, template, status, body, kind):
    async with rig(strict) as it:
        remote = it.remote(template=template, part_size=PART)
        for data, operation in ((SMALL, "Insert"), (BIG, "StartSession")):
            it.proxy.trouble(operation, "answer", answer=answer(status, body))
            with pytest.raises(kind) as caught:
                await upload(remote, U1 if data is BIG else U2, data)
            assert type(caught.value) is kind
            assert caught.value.advice or kind is Throttled
        await remote.abort_upload(U1)


@pytest_twisted.ensureDeferred
async def test_when_nobody_may_look_an_object_up_it_is_told_which_right_is_missing(strict, template):
    async with rig(strict) as it:
        remote = it.remote(template=template, part_size=PART)
        it.proxy.trouble("Finish", "lose", times=2)
        it.proxy.trouble("LookUp", "answer", answer=answer("403 Forbidden"))
        with pytest.raises(Transient):
            await upload(remote, U1, BIG)
        with pytest.raises(AuthFailed) as caught:
            await remote.finalize_upload(U1)
        assert "storage.objects.get" in caught.value.advice
        await remote.finalize_upload(U1)


@pytest_twisted.ensureDeferred
async def test_a_call_that_is_given_up_ends_at_once(server, template):
    async with rig(server) as it:
        remote = it.remote(template=template)
        it.proxy.trouble("Insert", "stall")
        await remote.initiate_upload(U1, len(SMALL), {})
        writing = remote.write_chunk(U1, 0, BytesRegion(SMALL), len(SMALL))
        while not it.proxy.requests.get("Insert"):
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
        for failing_at in (0, PART // 2):
            with pytest.raises(RegionLost):
                await remote.write_chunk(U1, 0, CountingRegion(PART, failing_at), PART)
        stored, _ = await persist(remote, U1, BIG)
        assert await it.content(stored.key) == BIG


@pytest_twisted.ensureDeferred
async def test_memory_and_connections_are_bounded(strict, template):
    async with rig(strict, limits=HttpLimits(connections=4)) as it:
        remote = it.remote(template=template, part_size=4 * MIB)
        regions = [CountingRegion(4 * MIB) for _ in range(12)]
        ids = [f"{index:032x}" for index in range(12)]
        for one in ids:
            await remote.initiate_upload(one, 8 * MIB, {})
        writes = [remote.write_chunk(one, 0, region, region.size) for one, region in zip(ids, regions, strict=True)]
        for each in writes:
            await each
        assert it.proxy.most <= 4
        assert max(region.largest for region in regions) <= 256 << 10


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
