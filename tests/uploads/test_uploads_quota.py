"""Whose uploads are whose, what they count for, and how fast bytes may come. The books are those of the daemon."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable.auth.quota import Ledger, Usage
from resumable.model.hooks import NoHooks, QuestionKind
from resumable.model.principal import Principal
from resumable.model.usage import Quota
from resumable.protocol.errors import NoSpace, TooLarge, TooManyRequests
from resumable.uploads.context import Questions
from resumable.uploads.limits import UploadLimits
from tests.uploads.fakes import FakeBody, FakeReplication
from tests.uploads.harness import LONG, Server, pattern, sha1
from tests.uploads.machine import machines

both_ways = pytest.mark.usefixtures("way")

ANN, BOB = Principal("ann"), Principal("bob")


def counted(serve, each=None, overall=None, **options):
    """A server with books."""
    server = serve(quota=Ledger(each, overall), **options)
    server.by = ANN
    return server


def agrees(server):
    """Whether the books say what somebody would find who counted anew."""
    anew = Ledger()
    for owned in server.catalog.owners():
        anew.add(owned.owner, owned.size, owned.unfinished_size, owned.unfinished)
    ledger = server.context.quota
    for name in (None, "ann", "bob", ""):
        assert ledger.usage(name) == anew.usage(name), name
    return True


# owners and maxima


@both_ways
def test_an_upload_belongs_to_who_created_it(server):
    server.by = ANN
    kept = [server.create(5), server.create(3, FakeBody.whole(b"abc")), server.create(LONG, FakeBody(LONG, b"a"))]
    part = server.upload(b"part", partial=True)
    kept.append(server.concat(part))
    assert {server.row(upload_id).owner for upload_id in [part, *server.names()]} == {"ann"}
    assert server.row(kept[0].value.id).owner == "ann"
    server.by = Principal()
    assert server.row(server.create(5).value.id).owner is None


@both_ways
@pytest.mark.parametrize(("ours", "theirs", "largest"), [(10, 5, 5), (5, 10, 5), (None, 5, 5)])
def test_the_lower_maximum_counts(serve, ours, theirs, largest):
    server = serve(limits=UploadLimits(max_size=ours))
    server.by = Principal("ann", max_size=theirs)
    assert isinstance(server.create(largest + 1).error, TooLarge)
    assert server.create(largest).error is None
    parts = [server.upload(b"abc", partial=True) for _ in range(2)]
    assert isinstance(server.concat(*parts).error, TooLarge)


@both_ways
def test_a_maximum_of_its_own_goes_with_the_upload(server):
    server.by = Principal("ann", max_size=5)
    upload_id = server.create().value.id
    server.by = Principal("ann")
    assert isinstance(server.patch(upload_id, 0, b"abcdef").error, TooLarge)
    assert isinstance(server.patch(upload_id, 0, FakeBody.chunked(b"abcdef")).error, TooLarge)
    assert isinstance(server.patch(upload_id, 5, b"", length=6).error, TooLarge)
    assert server.patch(upload_id, 5, b"", length=5).value.finished


@both_ways
def test_who_appends_is_held_to_their_own_maximum_too(server):
    upload_id = server.create().value.id
    server.by = Principal("ann", max_size=5)
    assert isinstance(server.patch(upload_id, 0, b"abcdef").error, TooLarge)


# what uploads count for


@both_ways
def test_a_known_length_counts_from_the_creation_on(serve):
    server = counted(serve, Quota(size=10))
    first = server.create(6).value.id
    assert isinstance(server.create(5).error, NoSpace)
    assert server.create(11).error.status == 413
    server.by = BOB
    server.create(10)
    server.by = ANN
    assert server.delete(first).error is None
    assert server.create(5, FakeBody.whole(b"abcde")).value.finished
    assert server.context.quota.usage("ann") == Usage(5, 0, 0)
    assert agrees(server)


@both_ways
def test_a_creation_that_failed_counts_for_nothing(serve):
    server = counted(serve, Quota(size=LONG * 3), reserve=0)
    for body in (FakeBody(5, b"a"), FakeBody(LONG, b"a")):
        answer = server.create(body.length, body)
        body.lose()
        server.pump()
        assert answer.error is not None
    server.machine.fail_commit(times=3)
    assert server.create(5).error is not None
    assert server.create(5, FakeBody.whole(b"abcde")).error is not None
    assert agrees(server)


@both_ways
def test_a_deferred_length_counts_with_what_has_come(serve):
    server = counted(serve, Quota(size=10))
    upload_id = server.create().value.id
    assert server.patch(upload_id, 0, b"abcdef").value.offset == 6
    assert server.context.quota.usage("ann") == Usage(6, 6, 1)
    assert isinstance(server.patch(upload_id, 6, b"ghijk").error, NoSpace)
    assert isinstance(server.patch(upload_id, 6, b"g", length=11).error, NoSpace)
    assert server.row(upload_id).length is None and server.row(upload_id).offset == 6
    assert server.patch(upload_id, 6, b"ghij", length=10).value.finished
    assert server.context.quota.usage("ann") == Usage(10, 0, 0) and agrees(server)


@both_ways
@pytest.mark.parametrize("size", [10, 3 * LONG])
@pytest.mark.parametrize("with_creation", [True, False])
def test_a_chunked_body_of_unknown_length_ends_where_the_room_does(serve, size, with_creation):
    server = counted(serve, Quota(size=size))
    body = FakeBody(None)
    if with_creation:
        answer = server.create(None, body)
    else:
        upload_id = server.create().value.id
        answer = server.patch(upload_id, 0, body)
    data = pattern(size + 1)
    body.arrive(data[: size - 1])
    server.pump()
    assert not answer.done
    body.arrive(data[size - 1 :])
    server.pump()
    assert body.discarded and answer.status == 507
    if not with_creation or size > LONG:
        upload_id = answer.cut.id if with_creation else upload_id
        assert server.head(upload_id).value.offset == size - 1
        assert server.content(upload_id) == data[: size - 1]
        assert server.patch(upload_id, size - 1, data[size - 1 : size], length=size).value.finished
    assert agrees(server)


@both_ways
def test_room_that_a_lost_body_had_is_given_back(serve):
    server = counted(serve, Quota(size=10))
    upload_id = server.create().value.id
    body = FakeBody(10, b"abc")
    answer = server.patch(upload_id, 0, body)
    server.by = ANN
    assert isinstance(server.create(1).error, NoSpace)
    body.lose()
    server.pump()
    assert answer.error is not None and server.row(upload_id).offset == 3
    assert server.create(7).error is None
    assert agrees(server)


@both_ways
def test_a_checksum_that_fails_keeps_and_counts_nothing(serve):
    server = counted(serve, Quota(size=10))
    upload_id = server.create().value.id
    assert server.patch(upload_id, 0, b"abcdef", checksum=sha1(b"x"), length=6).status == 460
    assert server.context.quota.usage("ann") == Usage(0, 0, 1) and agrees(server)


@both_ways
def test_unfinished_uploads_are_counted_and_make_room_when_they_end(serve):
    server = counted(serve, Quota(unfinished=2), limits=UploadLimits(expire_after=60))
    first, second = server.create(5).value.id, server.create().value.id
    assert isinstance(server.create(5).error, TooManyRequests)
    server.patch(first, 0, b"abcde")
    third = server.create(5)
    assert third.error is None
    server.delete(second)
    server.delete(second)
    assert server.create(5).error is None
    server.advance(100)
    server.sweep()
    server.pump()
    assert server.context.quota.usage("ann") == Usage(5, 0, 0) and agrees(server)


@both_ways
def test_an_upload_that_is_ended_while_it_grows_counts_for_nothing(serve):
    server = counted(serve, Quota(size=4 * LONG))
    upload_id = server.create().value.id
    body = FakeBody(None, pattern(2 * LONG))
    answer = server.patch(upload_id, 0, body)
    server.delete(upload_id)
    assert answer.error is not None
    assert server.context.quota.usage("ann") == Usage() and agrees(server)


class Agreeing(NoHooks):
    """Is asked before an upload is finished, and agrees."""

    def asks(self, kind):
        return kind is QuestionKind.FINISH


@both_ways
@pytest.mark.parametrize("with_creation", [True, False])
@pytest.mark.parametrize("data", [b"", b"abcde", pattern(LONG)])
def test_an_upload_that_a_hook_lets_finish_is_unfinished_no_longer(serve, with_creation, data):
    server = counted(serve, Quota(unfinished=1), questions=Questions(Agreeing()))
    if with_creation:
        assert server.create(len(data), FakeBody.whole(data)).value.finished
    else:
        upload_id = server.create(None).value.id
        assert server.patch(upload_id, 0, data, length=len(data)).value.finished
    assert server.context.quota.usage("ann") == Usage(len(data), 0, 0) and agrees(server)


@both_ways
def test_a_final_counts_beside_its_partials(serve):
    server = counted(serve, Quota(size=10))
    first, second = server.upload(b"abc", partial=True), server.upload(b"de", partial=True)
    assert server.concat(first, second).error is None
    server.pump()
    assert server.context.quota.usage("ann") == Usage(10, 0, 0) and agrees(server)
    assert isinstance(server.concat(first).error, NoSpace)


@both_ways
def test_a_final_of_unknown_length_waits_for_room(serve):
    server = counted(serve, Quota(size=10))
    part = server.create(None, partial=True).value.id
    final = server.concat(part).value.id
    other = server.upload(b"xyz")
    server.patch(part, 0, b"abcdef", length=6)
    server.pump()
    assert not server.row(final).finished and agrees(server)
    server.delete(other)
    server.delete(part)
    server.advance(60)
    server.pump()
    assert server.row(final).finished and server.content(final) == b"abcdef" and agrees(server)


@both_ways
def test_without_limits_nothing_is_kept(server):
    server.by = ANN
    server.delete(server.create(5).value.id)
    assert server.context.quota.counts is False
    assert Ledger().counts is False and Ledger(Quota(unfinished=1)).counts


OPERATION = st.tuples(
    st.sampled_from(["create", "deferred", "with body", "patch", "chunked", "lost", "length", "delete", "concat"]),
    st.integers(0, 5),
    st.sampled_from([0, 1, 5, LONG, 2 * LONG]),
    st.sampled_from([ANN, BOB]),
)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.booleans(), st.lists(OPERATION, max_size=25))
def test_whatever_happens_the_books_say_what_is_there(tmp_path_factory, direct, operations):
    FakeBody.direct = direct
    ledger = Ledger(Quota(size=6 * LONG, unfinished=4), Quota(size=9 * LONG))
    server = Server(next(machines(tmp_path_factory.mktemp("books"))), quota=ledger).start()
    made = []
    try:
        for what, which, size, by in operations:
            server.by = by
            do(server, made, what, which, size)
            server.pump()
            server.advance(31)
            agrees(server)
            assert server.context.quota.usage(None).size <= 9 * LONG
    finally:
        FakeBody.direct = False
        server.bury()


def do(server, made, what, which, size):
    upload_id = made[which % len(made)] if made else None
    data = pattern(size)
    if what in ("create", "deferred", "with body"):
        body = FakeBody.whole(data) if what == "with body" else None
        answer = server.create(None if what == "deferred" else size, body, partial=which > 3)
        if answer.error is None:
            made.append(answer.value.id)
        return
    if upload_id is None:
        return
    row = server.row(upload_id)
    if what == "delete":
        server.delete(upload_id)
    elif what == "concat":
        server.concat(*[each for each in made if server.row(each).is_partial][:2] or [upload_id])
    elif what == "length":
        server.patch(upload_id, row.offset, b"", length=row.offset + size)
    elif what == "lost":
        body = FakeBody(size + 1, data)
        server.patch(upload_id, row.offset, body)
        body.lose()
    else:
        server.patch(upload_id, row.offset, FakeBody.chunked(data) if what == "chunked" else data)


# how fast


class Pace:
    """Tells to pause for a second for each LONG bytes."""

    def __init__(self):
        self.told = []
        self.debt = 0.0

    def __call__(self, size):
        self.told.append(size)
        return self.debt + size / LONG


@both_ways
def test_who_sends_too_fast_waits_and_is_not_given_up(server):
    pace = Pace()
    server.by = Principal("ann", pace=pace)
    upload_id = server.create(3 * LONG).value.id
    body = FakeBody(3 * LONG, pattern(LONG))
    answer = server.patch(upload_id, 0, body)
    assert sum(pace.told) == LONG and body.events[-1] == "pause"
    server.advance(0.5)
    assert body.events[-1] == "pause"
    (append,) = server.uploads.appends._under_way
    assert append.heard == server.clock.seconds()
    server.advance(0.5)
    assert body.events[-1] == "resume"
    body.arrive(pattern(2 * LONG))
    server.pump()
    assert answer.value.finished and sum(pace.told) == 3 * LONG
    assert not server.clock.getDelayedCalls()


@both_ways
def test_a_debt_from_before_is_waited_for_at_the_beginning(server):
    pace = Pace()
    pace.debt = 5.0
    server.by = Principal("ann", pace=pace)
    answer = server.create(3, FakeBody.whole(b"abc"))
    assert not answer.done
    pace.debt = 0.0
    server.advance(5.0)
    server.pump()
    assert answer.value.finished


@both_ways
def test_a_pause_ends_with_its_append(server):
    pace = Pace()
    server.by = Principal("ann", pace=pace)
    upload_id = server.create(30 * LONG).value.id
    body = FakeBody(30 * LONG, pattern(LONG))
    answer = server.patch(upload_id, 0, body)
    server.delete(upload_id)
    assert answer.error is not None and not server.clock.getDelayedCalls()


@both_ways
def test_both_pauses_must_be_over(serve):
    remote = FakeReplication()
    server = serve(replication=remote)
    server.by = Principal("ann", pace=Pace())
    upload_id = server.create(3 * LONG).value.id
    body = FakeBody(3 * LONG)
    server.patch(upload_id, 0, body)
    remote.lagging = True
    body.arrive(pattern(LONG))
    assert body.events[-1] == "pause"
    server.advance(2.0)
    assert body.events[-1] == "pause"
    remote.catch_up()
    server.pump()
    assert body.events[-1] == "resume"
    remote.lagging = True
    body.arrive(pattern(LONG))
    remote.catch_up()
    server.pump()
    assert body.events[-1] == "pause"
    server.advance(2.0)
    assert body.events[-1] == "resume"
