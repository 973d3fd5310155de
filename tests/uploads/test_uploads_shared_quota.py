"""Appends whose bytes count in a catalog that several workers share: room is reserved before they are taken."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from resumable.auth.shared_quota import UNASKED, SharedLedger
from resumable.model.errors import CatalogUnavailable
from resumable.model.usage import IUsage, Quota, does_not_fit, never_fits, too_many
from resumable.protocol.errors import Gone, NoSpace, TooLarge, TooManyRequests, Unavailable
from resumable.uploads.append import PORTION
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import LONG, pattern, sha1

BIG = 1 << 40


@implementer(IUsage)
class Usage:
    """``most``: what an upload may reserve. ``waiting``: reservations whose answers are held back, if it is a list."""

    def __init__(self, most=BIG):
        self.most = most
        self.asked = []
        self.released = []
        self.gone = False
        self.broken = False
        self.waiting = None

    def reserve(self, upload_id, total, epoch):
        self.asked.append(total)
        if self.waiting is None:
            return self._answer(total)
        waiter = Deferred()
        self.waiting.append(waiter)
        return waiter.addCallback(lambda _: self._answer(total))

    def _answer(self, total):
        if self.broken:
            return fail(CatalogUnavailable("gone"))
        if total > self.most:
            return fail(does_not_fit())
        return succeed(not self.gone)

    def release(self, upload_id, epoch):
        self.released.append(epoch)
        return succeed(None)

    def let(self):
        waiting, self.waiting = self.waiting, None
        for waiter in waiting:
            waiter.callback(None)


@pytest.fixture
def usage():
    return Usage()


@pytest.fixture
def server(serve, usage):
    return serve(quota=SharedLedger(usage, Quota(size=BIG), Quota()))


def committed(server, upload_id):
    return server.row(upload_id).offset


# Lengths that are known


def test_a_known_length_is_the_creations_affair_and_nothing_is_reserved(server, usage):
    data = pattern(3 * LONG)
    upload_id = server.create(len(data)).value.id
    assert server.patch(upload_id, 0, data).value.finished
    assert server.create(len(data), FakeBody.whole(data)).value.finished
    assert usage.asked == [] and usage.released == []


def test_a_refusal_by_the_catalog_is_the_clients_answer(server, usage):
    for refusal in (does_not_fit(), too_many(), never_fits()):
        server.context.catalog.create = lambda *args, refusal=refusal, **more: fail(refusal)
        for answer in (server.create(5), server.create(LONG, FakeBody.whole(pattern(LONG)))):
            assert type(answer.error) is type(refusal) and answer.error.detail == refusal.detail
            assert answer.error.headers == refusal.headers
    assert server.names() == set()


def test_a_refused_creation_has_taken_no_byte(server):
    server.context.catalog.create = lambda *args, **more: fail(too_many())
    body = FakeBody(10 * LONG, pattern(100))
    assert isinstance(server.create(10 * LONG, body).error, TooManyRequests)
    assert "deliver" not in body.events


def test_what_can_never_fit_is_refused_before_the_catalog_is_asked(serve, usage):
    server = serve(quota=SharedLedger(usage, Quota(), Quota(unfinished_size=100), max_size=150))
    assert "150 bytes" in server.create(151).error.detail
    assert server.create(100).error is None
    server.context.catalog.create = None
    assert server.create(101).error.detail == never_fits().detail


def test_with_a_maximum_alone_the_catalog_is_asked_nothing(serve, usage):
    server = serve(quota=SharedLedger(usage, Quota(), Quota(), max_size=10 * LONG))
    upload_id = server.create().value.id
    server.patch(upload_id, 0, FakeBody.chunked(pattern(5 * LONG)))
    assert committed(server, upload_id) == 5 * LONG and usage.asked == []
    assert isinstance(server.patch(upload_id, 5 * LONG, FakeBody.whole(pattern(6 * LONG))).error, TooLarge)


# Lengths that are deferred


def test_a_declared_body_is_reserved_whole_before_it_is_read(server, usage):
    upload_id = server.create().value.id
    usage.waiting = []
    body = FakeBody.whole(pattern(2 * LONG))
    answer = server.patch(upload_id, 0, body)
    assert usage.asked == [2 * LONG] and "deliver" not in body.events and not answer.done
    usage.let()
    server.pump()
    assert answer.value.offset == 2 * LONG
    assert usage.released == [1]  # of the epoch of this append


def test_a_small_append_counts_by_its_commit_alone(server, usage):
    upload_id = server.create().value.id
    assert server.patch(upload_id, 0, pattern(100)).value.offset == 100
    assert server.patch(upload_id, 100, FakeBody.chunked(pattern(1000))).value.offset == 1100
    assert server.create(None, FakeBody.whole(pattern(UNASKED))).value.offset == UNASKED
    assert usage.asked == [] and usage.released == []


def test_a_body_without_a_length_is_reserved_in_portions(server, usage):
    upload_id = server.create().value.id
    body = FakeBody(None)
    answer = server.patch(upload_id, 0, body)
    body.arrive(pattern(LONG))
    server.pump()
    assert usage.asked == [LONG + PORTION]
    for number in range(10):
        body.arrive(pattern(LONG, number))
        server.pump()
    assert len(usage.asked) == 1
    body.end()
    server.pump()
    assert answer.value.offset == 11 * LONG and usage.released == [1]


def test_its_client_is_paused_while_room_is_asked_for_and_its_bytes_are_kept(server, usage):
    upload_id = server.create().value.id
    usage.waiting = []
    body = FakeBody(None)
    answer = server.patch(upload_id, 0, body)
    body.arrive(pattern(2 * LONG))
    server.advance(1)
    assert body.events[-1] == "pause"
    server.tick()
    assert committed(server, upload_id) == 0  # what isn't reserved isn't committed
    usage.let()
    server.pump()
    assert body.events[-1] == "resume"
    body.arrive(b"end")
    body.end()
    server.pump()
    assert answer.value.offset == 2 * LONG + 3 == committed(server, upload_id)


@pytest.mark.parametrize("how", ["end", "lose"])
def test_a_body_that_ends_while_room_is_asked_for_waits_for_that(server, usage, how):
    upload_id = server.create().value.id
    usage.waiting = []
    body = FakeBody(None)
    answer = server.patch(upload_id, 0, body)
    body.arrive(pattern(2 * LONG))
    server.pump()
    getattr(body, how)()
    server.advance(5)
    assert not answer.done and committed(server, upload_id) == 0
    usage.let()
    server.pump()
    assert answer.done and committed(server, upload_id) == 2 * LONG
    assert server.patch(upload_id, 2 * LONG, b"end", length=2 * LONG + 3).value.finished
    assert server.content(upload_id) == pattern(2 * LONG) + b"end"


def test_bytes_without_room_are_refused_and_those_before_are_kept(server, usage):
    upload_id = server.create().value.id
    usage.most = 3 * LONG
    body = FakeBody(None)
    answer = server.patch(upload_id, 0, body)
    body.arrive(pattern(2 * LONG))
    server.pump()
    assert usage.asked == [2 * LONG + PORTION, 2 * LONG]  # what is there fits, though not more
    body.arrive(pattern(LONG))
    server.pump()
    body.arrive(b"more")
    server.pump()
    assert isinstance(answer.error, NoSpace) and answer.error.detail == does_not_fit().detail
    assert committed(server, upload_id) == 3 * LONG
    assert usage.released == [1]


def test_a_refusal_after_the_end_keeps_what_was_counted(server, usage):
    upload_id = server.create().value.id
    usage.most, usage.waiting = LONG, []
    body = FakeBody(None)
    answer = server.patch(upload_id, 0, body)
    body.arrive(pattern(2 * LONG))
    body.end()
    server.pump()
    usage.let()
    server.pump()
    assert isinstance(answer.error, NoSpace) and committed(server, upload_id) <= LONG


def test_a_length_that_comes_with_an_append_is_reserved_first(server, usage):
    upload_id = server.create().value.id
    usage.most = 10 * LONG
    body = FakeBody(2 * LONG)
    answer = server.patch(upload_id, 0, body, length=10 * LONG + 1)
    assert isinstance(answer.error, NoSpace) and "deliver" not in body.events
    assert server.patch(upload_id, 0, pattern(2 * LONG), length=10 * LONG).value.offset == 2 * LONG


def test_a_creation_with_a_deferred_length_is_recorded_before_room_is_asked_for(server, usage):
    seen = []
    plain = usage.reserve

    def reserve(upload_id, total, epoch):
        seen.append(server.ask(server.catalog.get(upload_id)).value is not None)
        return plain(upload_id, total, epoch)

    usage.reserve = reserve
    for body in (FakeBody.whole(pattern(2 * LONG)), FakeBody.chunked(pattern(2 * LONG))):
        assert server.create(None, body).value.offset == 2 * LONG
    assert seen == [True, True] and usage.asked[0] == 2 * LONG


def test_such_a_creation_that_is_refused_leaves_an_upload_that_can_go_on(server, usage):
    usage.most = LONG
    answer = server.create(None, FakeBody.whole(pattern(2 * LONG)))
    assert isinstance(answer.error, NoSpace) and answer.cut is not None
    usage.most = BIG
    assert server.patch(answer.cut.id, answer.cut.offset, pattern(2 * LONG)).error is None


def test_a_checksum_is_verified_over_all_bytes(server, usage):
    data = pattern(3 * LONG)
    upload_id = server.create().value.id
    usage.waiting = []
    answer = server.patch(upload_id, 0, FakeBody.chunked(data), checksum=sha1(data))
    server.pump()
    usage.let()
    server.pump()
    assert answer.value.offset == len(data)


def test_a_catalog_that_fails_means_try_again_later(server, usage):
    upload_id = server.create().value.id
    usage.broken = True
    for body in (FakeBody.whole(pattern(2 * LONG)), FakeBody.chunked(pattern(2 * LONG))):
        assert isinstance(server.patch(upload_id, committed(server, upload_id), body).error, Unavailable)


def test_an_upload_that_is_gone_meanwhile_is_gone(server, usage):
    upload_id = server.create().value.id
    usage.gone = True
    assert isinstance(server.patch(upload_id, 0, FakeBody.whole(pattern(2 * LONG))).error, Gone)


def test_a_deleted_upload_ends_an_append_that_waits_for_room(server, usage):
    upload_id = server.create().value.id
    usage.waiting = []
    body = FakeBody(None)
    answer = server.patch(upload_id, 0, body)
    body.arrive(pattern(2 * LONG))
    server.pump()
    deleted = server.delete(upload_id)
    usage.let()
    server.pump()
    assert deleted.done and deleted.error is None and answer.error is not None


def test_nothing_is_counted_again_at_the_end_of_an_upload(server, usage):
    upload_id = server.create(5).value.id
    reads = []
    plain = server.context.catalog.get
    server.context.catalog.get = lambda each: reads.append(each) or plain(each)
    server.delete(upload_id)
    assert len(reads) == 1 and not server.context.quota.counts


def test_a_final_upload_whose_parts_had_no_length_reserves_its_bytes_before_they_are_copied(server, usage):
    part = server.create(None, partial=True).value.id
    final = server.concat(part).value
    usage.most, usage.asked = LONG, []
    assert server.patch(part, 0, pattern(LONG), length=LONG).value.finished
    server.advance(1)
    assert server.row(final.id).finished and server.content(final.id) == pattern(LONG)
