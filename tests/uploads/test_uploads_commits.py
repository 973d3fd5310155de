"""When an append commits, and what it may not commit before its end is seen."""

from __future__ import annotations

import pytest

from resumable.model.errors import BodyLost
from resumable.protocol.errors import BadRequest, ChecksumMismatch, Held, OffsetMismatch, TooLarge
from resumable.uploads.append import PART, SMALL
from resumable.uploads.appends import LATEST, NEVER, PER_TICK, WORTHWHILE, Appends
from resumable.uploads.limits import UploadLimits
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import EPOCH, LONG, UPLOADS, Server, pattern, sha1

DATA = pattern(LONG)
BIG = 1 << 32


def under_way(server: Server, created: int | None = BIG, body: FakeBody | None = None, **options):
    """An upload of that length and a PATCH to it whose body is still to come."""
    upload_id = server.create(created).value.id
    body = body or FakeBody(created)
    return upload_id, body, server.patch(upload_id, 0, body, **options)


# when


def test_a_small_append_is_one_write_one_sync_and_one_commit(server):
    """A small append is gathered in memory: written, synced and recorded in one go."""
    upload_id = server.create(SMALL).value.id
    server.machine.trace.clear()
    assert server.patch(upload_id, 0, pattern(SMALL)).value.finished
    assert server.machine.trace == ["open", "writev", "fdatasync", "close", "sync_directory", "COMMIT"]


def test_a_long_append_commits_a_parts_worth(server):
    """Commit in a long append: a part's worth."""
    upload_id, body, answer = under_way(server)
    body.arrive(bytes(PART - 1))
    server.pump()
    assert server.row(upload_id).offset == 0
    body.arrive(b"x")
    server.pump()
    assert server.row(upload_id).offset == PART
    assert not answer.done


def test_it_commits_after_a_second_if_a_mebibyte_is_new(server):
    """... or 1 s with at least 1 MiB new."""
    upload_id, body, _ = under_way(server)
    body.arrive(bytes(WORTHWHILE))
    server.advance(0.9)
    assert server.tick() == 0
    server.advance(0.1)
    assert server.tick() == 1
    assert server.row(upload_id).offset == WORTHWHILE


def test_while_a_commit_is_under_way_no_other_is_asked_for(server):
    """A catalog that stands still for an hour must not be left with an hour's commits of each append."""
    upload_id, body, _ = under_way(server)
    body.arrive(bytes(WORTHWHILE))
    server.advance(1)
    appends, now = server.uploads.appends, server.clock.seconds()
    assert [appends.tick(now + seconds) for seconds in range(20)] == [1, *[0] * 19]
    server.pump()
    assert server.row(upload_id).offset == WORTHWHILE


@pytest.mark.parametrize("size", [1, SMALL, WORTHWHILE - 1])
def test_it_commits_after_ten_seconds_if_anything_is_new(server, size):
    """... or 10 s: a slow upload is safe too, however little came in."""
    upload_id, body, _ = under_way(server)
    body.arrive(bytes(size))
    for _ in range(int(LATEST) - 1):
        server.advance(1)
        assert server.tick() == 0
    server.advance(1)
    assert server.tick() == 1
    assert server.row(upload_id).offset == size
    server.advance(60)
    assert server.tick() == 0  # nothing is new


def test_the_ten_seconds_count_from_the_last_commit(server):
    upload_id, body, _ = under_way(server)
    body.arrive(b"x" * 10)
    server.advance(9)
    assert server.head(upload_id).error is None  # silent: evicted and committed
    assert server.row(upload_id).offset == 10


def test_a_slow_creation_commits_as_well(server):
    """The same for POST bodies."""
    answer = server.create(BIG, FakeBody(None))
    server.bodies[-1].arrive(b"slowly")
    server.advance(10)
    server.tick()
    assert not answer.done
    (upload_id,) = server.names()
    assert server.row(upload_id).offset == 6


def test_timed_syncs_are_capped_and_those_that_waited_longest_go_first():
    """Timed syncs are capped per second, so 5,000 slow uploads don't sync 5,000 times a second."""

    class Slow:
        is_busy = False
        committed, committed_at, committable = 0, 0.0, 1

        def __init__(self, number: int) -> None:
            self.number = number

        def commit_soon(self) -> None:
            done.append(self.number)

    done: list[int] = []
    appends = Appends(None)
    for number in range(5000):
        appends.add(Slow(number))
    ticks = -(-5000 // PER_TICK)
    assert all(appends.tick(LATEST + second) <= PER_TICK for second in range(ticks))
    assert set(done) == set(range(5000))  # each has had its turn


def test_a_commit_touches_the_upload(server):
    """Expiry counts from the last committed byte; a clock that goes backwards does not take that back."""
    upload_id = server.upload(b"x", length=100)
    server.advance(50)
    server.patch(upload_id, 1, b"y")
    assert server.row(upload_id).touched_at == EPOCH + 50
    server.skew = -1000
    assert server.patch(upload_id, 2, b"z").value.touched_at == EPOCH + 50
    assert server.row(upload_id).touched_at == EPOCH + 50


# a body that is cut off


@pytest.mark.parametrize("size", [1, SMALL, LONG, PART + 1])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("reason", ["disconnected", "idle", "slow", "malformed"])
def test_what_arrived_before_a_disconnect_is_kept(server, size, chunked, reason):
    """When a connection drops mid-body, the contiguous bytes received so far are committed, and the next HEAD reports
    them."""
    upload_id, body, answer = under_way(server, body=FakeBody(None if chunked else BIG))
    body.arrive(pattern(size))
    body.lose(reason)
    server.pump()
    assert isinstance(answer.error, BodyLost)
    assert server.head(upload_id).value.offset == size
    assert server.content(upload_id) == pattern(size)


def test_bytes_that_came_while_we_paused_are_kept_too(server):
    """..., those that waited for a slow disk as well."""
    upload_id, body, _ = under_way(server)
    body.arrive(bytes(9 << 20))
    body.arrive(b"late")
    assert body.events[-1] == "pause"
    body.lose()
    server.pump()
    assert server.head(upload_id).value.offset == (9 << 20) + 4


def test_a_small_creation_that_is_cut_off_is_not_there(server):
    """Exception: its client does not know its URL, so there is nothing to come back to."""
    server.machine.trace.clear()
    answer = server.create(100, FakeBody(100).arrive(b"some"))
    server.bodies[-1].lose()
    server.pump()
    assert isinstance(answer.error, BodyLost)
    assert server.machine.trace == []


def test_a_long_creation_that_is_cut_off_is_kept(server):
    """The same for POST bodies: it was recorded before its first byte was written."""
    answer = server.create(BIG, FakeBody(BIG).arrive(DATA))
    server.bodies[-1].lose()
    server.pump()
    assert isinstance(answer.error, BodyLost)
    (upload_id,) = server.names()
    assert server.head(upload_id).value.offset == LONG


def test_eviction_answers_held(server):
    """Its request answered 423."""
    upload_id, body, answer = under_way(server)
    body.arrive(DATA)
    server.advance(1)
    server.head(upload_id)
    assert isinstance(answer.error, Held)


def test_bytes_after_the_eviction_are_not_taken(server):
    upload_id, body, _ = under_way(server)
    body.arrive(DATA)
    server.advance(1)
    assert server.head(upload_id).value.offset == LONG
    body.arrive(b"a dead man's voice")
    server.pump()
    assert server.head(upload_id).value.offset == LONG


# chunked bodies


@pytest.mark.parametrize("length", [10, LONG, LONG + 10])
def test_a_chunked_body_commits_no_byte_at_or_past_the_length_before_its_end(server, length):
    """A chunked append commits no byte at or past the length before its end is seen: the last byte of the length
    waits."""
    upload_id, body, answer = under_way(server, length, FakeBody(None))
    body.arrive(pattern(length))
    server.advance(0.1)
    assert server.head(upload_id).value.offset == length - 1
    assert not server.row(upload_id).finished
    body.end()
    server.pump()
    assert answer.value.finished
    assert server.content(upload_id) == pattern(length)


@pytest.mark.parametrize("length", [1, 10, SMALL, LONG, LONG + 10])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_chunked_body_that_runs_past_the_length_is_413_and_does_not_finish(server, length, pieces):
    """413 with the committed Upload-Offset; the rest dropped; that request does not finish the upload."""
    upload_id, body, answer = under_way(server, length, FakeBody(None))
    data = pattern(length + 100)
    for start in range(0, len(data), -(-len(data) // pieces)):
        body.arrive(data[start : start + -(-len(data) // pieces)])
        server.pump()
    server.pump()
    assert isinstance(answer.error, TooLarge)
    row = server.row(upload_id)
    assert (row.offset, row.finished) == (length - 1, False)
    assert answer.error.headers == {"Upload-Offset": str(length - 1)}
    assert (server.content(upload_id) or b"") == data[: length - 1]
    assert server.patch(upload_id, length - 1, data[length - 1 : length]).value.finished


def test_an_overrun_is_answered_before_the_body_ends(server):
    """Rejected before the body ends: the answer at once. A body without an end holds nothing."""
    upload_id, body, answer = under_way(server, LONG, FakeBody(None))
    body.arrive(bytes(LONG + 1))
    server.pump()
    assert isinstance(answer.error, TooLarge)
    assert body.discarded
    assert not server.context.holds.held(upload_id)


def test_an_overrun_of_the_maximum_is_413_too(serve):
    """Chunked body runs past the maximum: 413 with the committed Upload-Offset. Nothing can be finished there."""
    server = serve(limits=UploadLimits(max_size=LONG))
    upload_id, body, answer = under_way(server, None, FakeBody(None))
    body.arrive(bytes(LONG + 5))
    server.pump()
    assert answer.error.offset == LONG
    assert server.head(upload_id).value.offset == LONG
    assert not server.row(upload_id).finished


def test_an_overrun_records_no_length(server):
    """Upload-Length on PATCH: nothing recorded on refusal."""
    upload_id, body, answer = under_way(server, None, FakeBody(None), length=LONG)
    body.arrive(bytes(LONG + 5))
    server.pump()
    assert answer.status == 413
    assert server.row(upload_id).length is None


@pytest.mark.parametrize("size", [101, LONG])
def test_a_declared_length_that_runs_past_is_refused_before_the_body_is_read(server, size):
    """Declared Content-Length runs past the length or the maximum: 413 before the body is read, nothing stored."""
    upload_id, body, answer = under_way(server, 100, FakeBody(size))
    assert answer.error.offset == 0
    assert "deliver" not in body.events
    assert server.names() == set()
    assert not server.context.holds.held(upload_id)


def test_a_length_that_comes_with_a_declared_body_is_recorded_with_its_first_commit(server):
    """Upload-Length on PATCH: a body that can no longer be refused brings it early."""
    upload_id, body, _ = under_way(server, None, FakeBody(BIG), length=BIG)
    body.arrive(DATA)
    assert server.head(upload_id).value.length == BIG


def test_an_empty_append_that_brings_the_length_finishes(server):
    upload_id = server.create().value.id
    server.patch(upload_id, 0, b"ten bytes.")
    assert server.patch(upload_id, 10, length=10).value.finished
    assert server.row(upload_id).finished


def test_a_length_of_zero_makes_an_empty_file(server):
    """A zero length is there at once (T23), for a deferred one with the PATCH that says so."""
    for upload_id in (server.create(0).value.id, server.create().value.id):
        server.patch(upload_id, 0, length=0)
        assert server.row(upload_id).finished
        assert server.content(upload_id) == b""


def test_an_empty_append_at_the_end_of_a_finished_upload_is_fine(server):
    """PATCH at the end of a finished upload, empty body: 204."""
    upload_id = server.upload(b"all of it")
    assert server.patch(upload_id, 9).value.finished
    assert server.patch(upload_id, 9, FakeBody.chunked(b"")).value.finished
    assert isinstance(server.patch(upload_id, 8, b"t").error, OffsetMismatch)
    assert server.patch(upload_id, 9, FakeBody.chunked(b"!")).status == 413
    assert server.patch(upload_id, 9, FakeBody.chunked(DATA)).status == 413
    assert server.content(upload_id) == b"all of it"


# checksums


@pytest.mark.parametrize("size", [10, LONG, PART + 1])
def test_an_append_with_a_checksum_commits_only_when_verified(server, size):
    """A checksum means that the append commits only when verified."""
    data = pattern(size)
    upload_id, body, answer = under_way(server, BIG, FakeBody(size), checksum=sha1(data))
    body.arrive(data[:-1])
    server.advance(0.1)
    assert server.head(upload_id).value.offset == 0
    server.tick()
    assert server.row(upload_id).offset == 0
    body.arrive(data[-1:])
    server.pump()
    assert answer.value.offset == size
    assert server.content(upload_id) == data


@pytest.mark.parametrize("size", [10, LONG])
def test_after_a_mismatch_nothing_is_kept(server, size):
    """Mismatch 460, nothing kept."""
    upload_id = server.upload(b"before", length=BIG)
    answer = server.patch(upload_id, 6, pattern(size), checksum=sha1(b"other"))
    assert isinstance(answer.error, ChecksumMismatch)
    assert server.head(upload_id).value.offset == 6
    assert server.content(upload_id) == b"before"
    assert server.patch(upload_id, 6, b" and after").value.offset == 16
    assert server.content(upload_id) == b"before and after"


@pytest.mark.parametrize("size", [10, LONG])
@pytest.mark.parametrize("how", ["lost", "evicted"])
def test_an_append_with_a_checksum_that_does_not_end_keeps_nothing(server, size, how):
    """Exception: an append with Upload-Checksum commits only once verified."""
    upload_id, body, answer = under_way(server, BIG, FakeBody(BIG), checksum=sha1(b""))
    body.arrive(pattern(size))
    if how == "lost":
        body.lose()
    server.advance(1)
    assert server.head(upload_id).value.offset == 0
    assert answer.error is not None
    assert not server.content(upload_id)


@pytest.mark.parametrize("size", [10, LONG])
def test_an_announced_trailer_is_verified(server, size):
    """A checksum, announced in the header or as a trailer, means that the append commits only when verified."""
    data = pattern(size)
    upload_id, body, answer = under_way(server, BIG, FakeBody(None), trailer=True)
    body.arrive(data)
    assert server.head(upload_id).value.offset == 0
    body.end({"upload-checksum": _header(data)})
    server.pump()
    assert answer.value.offset == size
    assert server.content(upload_id) == data


@pytest.mark.parametrize("size", [10, LONG])
@pytest.mark.parametrize("trailers", [{}, {"upload-checksum": "sha1 bm8"}, {"upload-checksum": "nonsense"}])
def test_an_announced_trailer_that_does_not_come_is_400(server, size, trailers):
    """Announced but missing is 400, dropped; so is one that is malformed."""
    upload_id, body, answer = under_way(server, BIG, FakeBody(None), trailer=True)
    body.arrive(pattern(size))
    body.end(trailers)
    server.pump()
    assert isinstance(answer.error, BadRequest)
    assert server.head(upload_id).value.offset == 0
    assert not server.content(upload_id)


@pytest.mark.parametrize("size", [10, LONG])
@pytest.mark.parametrize(
    "value", ["sha1 h6zsF7+CmToFX+0jdPjixyyRrcQ=", "sha1 bm8=", "md5 h6zsF7+CmToFX+0jdPjixyyRrcQ="]
)
def test_a_wrong_trailer_is_460(server, size, value):
    """... also where the value has another length than the algorithm's, as it then can't match."""
    upload_id, body, answer = under_way(server, BIG, FakeBody(None), trailer=True)
    body.arrive(pattern(size))
    body.end({"upload-checksum": value})
    server.pump()
    assert isinstance(answer.error, ChecksumMismatch)
    assert server.head(upload_id).value.offset == 0


@pytest.mark.parametrize("size", [10, LONG])
def test_a_trailer_that_was_not_announced_is_400_once_something_is_committed(server, size):
    """A trailer that wasn't announced on an append that has committed is 400 and the connection closed."""
    upload_id, body, answer = under_way(server, BIG, FakeBody(None))
    body.arrive(pattern(size))
    assert server.head(upload_id).value.offset == size
    body.arrive(b"more")
    body.end({"upload-checksum": _header(pattern(size) + b"more")})
    server.pump()
    assert isinstance(answer.error, BadRequest)
    assert server.head(upload_id).value.offset == size


@pytest.mark.parametrize("size", [10, LONG])
@pytest.mark.parametrize("right", [True, False])
def test_a_trailer_that_was_not_announced_is_verified_if_nothing_is_committed(server, size, right):
    """... and verified where that is still possible."""
    data = pattern(size)
    upload_id, body, answer = under_way(server, BIG, FakeBody(None))
    body.arrive(data)
    body.end({"upload-checksum": _header(data if right else b"other")})
    server.pump()
    assert answer.status == (None if right else 460)
    assert server.head(upload_id).value.offset == (size if right else 0)


@pytest.mark.parametrize("size", [10, LONG])
def test_the_same_for_post_bodies(server, size):
    """The same for POST bodies: nothing is committed before it is verified; a long one stays, at 0."""
    data = pattern(size)
    assert server.create(size, FakeBody.whole(data), checksum=sha1(data)).value.finished
    answer = server.create(size, FakeBody.whole(data), checksum=sha1(b"other"))
    assert isinstance(answer.error, ChecksumMismatch)
    if answer.cut is not None:
        assert server.head(answer.cut.id).value.offset == 0
        assert server.patch(answer.cut.id, 0, data).value.finished


def _header(data: bytes) -> str:
    from base64 import b64encode

    return f"sha1 {b64encode(sha1(data).digest).decode()}"


# memory


def test_at_most_eight_mebibytes_of_one_append_are_queued(server):
    """Queued bytes: at most 8 MiB for one append."""
    _, body, _ = under_way(server)
    for _ in range(8):
        assert body.events == ["deliver"]
        body.arrive(bytes(1 << 20))
    assert body.events == ["deliver", "pause"]
    server.pump()
    assert body.events == ["deliver", "pause", "resume"]


def test_small_appends_that_wait_are_written_out_when_memory_is_short(serve):
    """... and 32 MiB in all: those that only gather start to write, nobody waits for ever."""
    server = serve(budget=100_000)
    started = [under_way(server) for _ in range(4)]
    for _, body, _ in started:
        body.arrive(bytes(40_000))
    server.pump()
    assert server.spool._budget.used < 50_000
    assert any(server.disk.file_size(f"{UPLOADS}/{upload_id}") == 40_000 for upload_id, _, _ in started)
    for upload_id, body, _ in started:
        body.lose()
        server.pump()
        assert server.head(upload_id).value.offset == 40_000


def test_where_a_commit_costs_a_request_to_a_store_it_comes_after_ten_seconds_only():
    asked = []

    class Append:
        is_busy = False
        committed, committed_at, committable = 0, 0.0, 1 << 30

        def commit_soon(self):
            asked.append(self)

    appends = Appends(None, worthwhile=NEVER)
    appends.add(Append())
    assert [appends.tick(second) for second in (1.0, LATEST - 1)] == [0, 0]
    assert appends.tick(LATEST) == 1 == len(asked)
