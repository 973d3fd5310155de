"""Holds of several workers: the newer append wins at once, and whatever a worker doesn't know yet, the row decides."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from resumable.model.workers import IClaims, IDrainRecord, IWake, IWorkers
from resumable.protocol.errors import Gone, Held, OffsetMismatch
from resumable.testing.fake_cluster import FakeCluster
from resumable.uploads.append import PART, PAUSE
from resumable.uploads.holds import SILENCE, IHolds, IRoles
from resumable.uploads.limits import UploadLimits
from resumable.uploads.shared_holds import AGAIN, PATIENCE, SharedRoles
from tests.uploads.cluster_rig import clusters
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import LONG, pattern, sha1

DATA = pattern(LONG + 1000)
BIG = 1 << 30


@pytest.fixture(params=["simulated", pytest.param("postgres", marks=pytest.mark.process)])
def cluster(directory, request):
    """Over a simulated catalog, and over a real one."""
    cluster = clusters(request.param)(directory)
    yield cluster
    cluster.bury()


@pytest.fixture
def pair(cluster):
    return cluster.engine(), cluster.engine()


def receiving(engine, upload_id, offset=0, length=10 * LONG, data=DATA, **request):
    """A PATCH under way that has received ``data``."""
    body = FakeBody(length)
    answer = engine.patch(upload_id, offset, body, **request)
    body.arrive(data)
    engine.pump()
    return answer, body


def test_the_fakes_and_the_shared_rights_are_what_they_claim_to_be(pair):
    for interface in (IWorkers, IWake, IClaims, IDrainRecord):
        verifyObject(interface, pair[0].worker)
    verifyObject(IHolds, pair[0].context.holds)
    verifyObject(IRoles, pair[0].roles)


# Within one worker


def test_a_patch_where_a_live_append_stands_takes_over_at_once(pair):
    """The newer append wins, at once, also from a live one: its bytes are committed, and its client is told 423."""
    one, _ = pair
    upload_id = one.create(len(DATA) + 10).value.id
    first, body = receiving(one, upload_id, length=len(DATA) + 10)
    second = one.patch(upload_id, len(DATA), b"y" * 10)
    assert isinstance(first.error, Held) and first.error.headers["Retry-After"]
    assert body.discarded
    assert second.value.finished
    assert one.content(upload_id) == DATA + b"y" * 10
    assert one.clock.seconds() == 0.0


@pytest.mark.parametrize("offset", [0, 1, LONG + 999, LONG + 1001])
def test_a_patch_that_cannot_match_ends_nobody(pair, offset):
    one, _ = pair
    upload_id = one.create(BIG).value.id
    first, body = receiving(one, upload_id)
    assert isinstance(one.patch(upload_id, offset, b"x").error, OffsetMismatch)
    assert not first.done and not body.discarded


@pytest.mark.parametrize("size", [1000, LONG])
def test_of_eight_patches_at_one_offset_of_one_worker_the_newest_is_left(pair, size):
    """Nothing interleaves, and no time passes until one is left."""
    one, _ = pair
    upload_id = one.create(size).value.id
    bodies = [FakeBody(size) for _ in range(8)]
    answers = [one.patch(upload_id, 0, body) for body in bodies]
    assert [answer.status for answer in answers] == [423] * 7 + [None]
    assert one.context.holds.count == 1
    for number, body in enumerate(bodies):
        body.arrive(bytes([number]) * size)
    one.pump()
    assert answers[-1].value.finished
    assert one.content(upload_id) == bytes([7]) * size


def test_an_append_that_ends_before_it_has_begun_takes_no_row(pair):
    """One that is overtaken while it waits must not overtake what another worker has begun since."""
    one, _ = pair
    upload_id = one.create(LONG).value.id
    epoch = one.row(upload_id).epoch
    for _ in range(3):
        one.uploads.append(upload_id, _at(0), FakeBody(LONG)).addErrback(lambda _: None)
    one.pump()
    assert one.row(upload_id).epoch == epoch + 1


def _at(offset):
    from resumable.protocol.tus import Append

    return Append(offset, None, None, False)


# Between workers


@pytest.mark.parametrize("size", [100, len(DATA)])
def test_a_patch_at_another_worker_wins_at_once_from_a_live_append(pair, size):
    """No request waits for another process to be safe."""
    one, other = pair
    upload_id = one.create(BIG).value.id
    first, body = receiving(one, upload_id, length=BIG, data=DATA[:size])
    second = other.patch(upload_id, 0, b"z" * 50)
    assert second.value.offset == 50
    body.arrive(b"late")
    one.uploads.appends.tick(1000.0)
    one.pump()
    body.lose()
    one.pump()
    assert isinstance(first.error, Held)
    assert one.content(upload_id) == b"z" * 50
    assert not one.context.holds.held(upload_id)


def test_the_client_of_an_overtaken_append_is_told_with_its_next_commit(pair):
    """423, and its connection is closed; nothing is cut off, lost or a failure of ours; its hold is given back."""
    one, other = pair
    upload_id = one.create(BIG).value.id
    first, body = receiving(one, upload_id, length=BIG)
    assert other.patch(upload_id, 0, b"z" * LONG).value.offset == LONG
    one.advance(20)
    one.uploads.appends.tick(one.clock.seconds())
    one.pump()
    assert isinstance(first.error, Held)
    assert body.discarded
    assert one.row(upload_id).gone is None
    assert not one.context.holds.held(upload_id)
    assert one.content(upload_id) == b"z" * LONG


def test_a_frozen_worker_that_wakes_commits_nothing(pair):
    one, other = pair
    upload_id = one.create(2 * len(DATA)).value.id
    first, body = receiving(one, upload_id, length=2 * len(DATA))
    one.freeze()
    assert other.patch(upload_id, 0, b"z" * len(DATA)).value.offset == len(DATA)
    body.arrive(DATA)
    one.thaw()
    assert isinstance(first.error, Held)
    assert one.content(upload_id) == b"z" * len(DATA)
    assert other.patch(upload_id, len(DATA), b"y" * len(DATA)).value.finished


@pytest.mark.parametrize("small", [True, False])
def test_of_eight_patches_at_one_offset_of_two_workers_one_is_left(pair, small):
    size = 1000 if small else LONG
    upload_id = pair[0].create(size).value.id
    bodies = [FakeBody(size) for _ in range(8)]
    answers = [pair[number % 2].patch(upload_id, 0, body) for number, body in enumerate(bodies)]
    for number, body in enumerate(bodies):
        body.arrive(bytes([number]) * size)
    pair[0].pump()
    assert [answer.status for answer in answers].count(423) == 7
    winner = next(number for number, answer in enumerate(answers) if answer.error is None)
    assert pair[0].content(upload_id) == bytes([winner]) * size


def test_a_worker_that_was_overtaken_refuses_nobody_for_its_stale_append(pair):
    """A PATCH that matches the row matches, though this worker still has an older append that stands elsewhere."""
    one, other = pair
    upload_id = one.create(BIG).value.id
    first, _ = receiving(one, upload_id, length=BIG)
    assert other.patch(upload_id, 0, b"z" * 50).value.offset == 50
    assert one.patch(upload_id, 50, b"y" * 50).value.offset == 100
    assert isinstance(first.error, Held)
    assert one.content(upload_id) == b"z" * 50 + b"y" * 50


def test_an_append_whose_commit_is_under_way_is_not_taken_for_overtaken(pair):
    """The row is further than it knows, by its own commit."""
    one, _ = pair
    upload_id = one.create(BIG).value.id
    first, body = receiving(one, upload_id, length=BIG)
    one.uploads.appends.tick(1000.0)
    body.arrive(b"more")
    assert isinstance(one.patch(upload_id, len(DATA), b"x").error, OffsetMismatch)
    assert not first.done and not body.discarded
    assert one.row(upload_id).offset == len(DATA)


def test_an_empty_patch_takes_over_too(pair):
    """So an older append elsewhere, which stands at that offset, commits no more."""
    one, other = pair
    upload_id = one.create(BIG).value.id
    first, body = receiving(one, upload_id, length=BIG)
    assert other.patch(upload_id, 0, b"").value.offset == 0
    body.lose()
    one.pump()
    assert first.done and one.row(upload_id).offset == 0


def test_an_append_commits_a_parts_worth_forty_times_a_second_at_most(pair):
    """Each commit costs the database that all share; what arrives meanwhile goes with the next one."""
    one, _ = pair
    upload_id = one.create(BIG).value.id
    one.advance(PAUSE)
    _, body = receiving(one, upload_id, length=BIG, data=bytes(PART))
    assert one.row(upload_id).offset == 0, "the append has only just begun"
    one.advance(PAUSE)
    body.arrive(b"x")
    one.pump()
    assert one.row(upload_id).offset == PART + 1
    body.arrive(bytes(2 * PART))
    one.pump()
    assert one.row(upload_id).offset == PART + 1
    one.advance(PAUSE)
    body.arrive(b"y")
    one.pump()
    assert one.row(upload_id).offset == 3 * PART + 2


# HEAD


def test_an_append_is_under_way_for_every_worker_until_it_ends(pair):
    one, _ = pair
    upload_id = one.create(len(DATA)).value.id

    def told() -> list[bool]:
        return [engine.ask(engine.context.holds.under_way(upload_id)).value for engine in pair]

    assert told() == [False, False]
    _, body = receiving(one, upload_id, length=len(DATA), data=DATA[:-1])
    one.clock.advance(1.0)
    one.pump()
    assert told() == [True, True]
    body.arrive(DATA[-1:])
    one.pump()
    assert told() == [False, False]


def test_head_at_another_worker_has_the_keeper_commit_and_ends_nothing(pair):
    one, other = pair
    upload_id = one.create(10 * LONG).value.id
    answer, body = receiving(one, upload_id)
    sent = len(DATA)
    for _ in range(5):
        one.advance(0.2)
        assert other.head(upload_id).value.offset == sent
        body.arrive(b"more")
        sent += 4
    assert not answer.done and not body.discarded
    assert one.context.holds.takeovers == 0


def test_head_at_another_worker_ends_a_silent_append_and_keeps_its_bytes(pair):
    one, other = pair
    upload_id = one.create(BIG).value.id
    answer, _ = receiving(one, upload_id, length=BIG)
    one.advance(SILENCE)
    assert other.head(upload_id).value.offset == len(DATA)
    assert isinstance(answer.error, Held)
    assert other.patch(upload_id, len(DATA), b"z").value.offset == len(DATA) + 1


@pytest.mark.parametrize("why", ["frozen", "lost"])
def test_head_waits_a_tenth_of_a_second_for_a_keeper_that_says_nothing(cluster, pair, why):
    one, other = pair
    upload_id = one.create(BIG).value.id
    receiving(one, upload_id, length=BIG)
    if why == "frozen":
        one.freeze()
    cluster.fake.held_back = True
    head = other.head(upload_id)
    assert not head.done
    cluster.fake.lose()
    other.advance(PATIENCE)
    assert head.value.offset == 0
    assert other.patch(upload_id, 0, b"z").value.offset == 1


def test_head_waits_for_nobody_when_no_other_worker_has_the_upload(pair):
    one, other = pair
    upload_id = one.upload(b"abc", length=10)
    assert other.head(upload_id).value.offset == 3
    assert ("settle", upload_id) not in other.worker.told


def test_head_of_an_append_that_was_overtaken_is_answered_all_the_same(pair):
    """The offset is the row's, and the append ends."""
    one, other = pair
    upload_id = one.create(BIG).value.id
    first, _ = receiving(one, upload_id, length=BIG)
    other.patch(upload_id, 0, b"z" * 50)
    assert one.head(upload_id).value.offset == 50
    assert isinstance(first.error, Held)


@pytest.mark.parametrize("cluster", ["simulated"], indirect=True)
def test_head_is_answered_from_the_row_when_nobody_knows_the_keeper(cluster, pair):
    one, other = pair
    upload_id = one.upload(b"abc", length=10)
    cluster.fake.down = True
    assert other.head(upload_id).value.offset == 3


@pytest.mark.parametrize("cluster", ["simulated"], indirect=True)
def test_a_patch_that_may_match_is_answered_503_while_the_catalog_is_away(pair):
    """Whether the append that is here was overtaken can't be known then."""
    one, _ = pair
    upload_id = one.create(BIG).value.id
    first, body = receiving(one, upload_id, length=BIG)
    one.context.catalog.away = True
    assert one.patch(upload_id, 1, b"x").status == 503
    assert not first.done and not body.discarded
    one.context.catalog.away = False


# DELETE


@pytest.mark.parametrize("lost", [False, True])
def test_delete_at_another_worker_ends_the_append(cluster, pair, lost):
    """At once by the message, or else by the row."""
    one, other = pair
    upload_id = one.create(BIG).value.id
    answer, body = receiving(one, upload_id, length=BIG)
    cluster.fake.held_back = lost
    assert other.delete(upload_id).value is None
    if lost:
        cluster.fake.lose()
        body.lose()
        one.pump()
        assert answer.done
    else:
        assert isinstance(answer.error, Gone)
        assert body.discarded
    assert isinstance(one.head(upload_id).error, Gone)
    assert not one.context.holds.held(upload_id)


# Expiry


def test_an_append_that_commits_nothing_keeps_its_upload_from_expiring(cluster):
    """A checksum is pending: the row is touched by the clock, so no other worker's janitor takes it for idle."""
    limits = UploadLimits(expire_after=400.0)
    one, other = cluster.engine(limits=limits), cluster.engine(limits=limits)
    upload_id = one.create(len(DATA)).value.id
    body = FakeBody(len(DATA))
    answer = one.patch(upload_id, 0, body, checksum=sha1(DATA))
    body.arrive(DATA[:-1])
    for _ in range(20):
        one.advance(50)
        one.tick()
        other.sweep()
    body.arrive(DATA[-1:])
    one.pump()
    assert answer.value.finished
    assert one.row(upload_id).gone is None


def test_an_append_that_was_overtaken_learns_it_when_it_touches_its_row(cluster):
    one, other = (cluster.engine(limits=UploadLimits(expire_after=400.0)) for _ in range(2))
    upload_id = one.create(len(DATA)).value.id
    body = FakeBody(len(DATA))
    answer = one.patch(upload_id, 0, body, checksum=sha1(DATA))
    body.arrive(DATA[:10])
    other.patch(upload_id, 0, b"z" * LONG)
    one.advance(100)
    one.tick()
    assert isinstance(answer.error, Held)


def test_rows_are_touched_rarely(cluster):
    """Four times in the time that it takes to expire."""
    one = cluster.engine(limits=UploadLimits(expire_after=400.0))
    upload_id = one.create(LONG).value.id
    receiving(one, upload_id, length=LONG, data=b"x", checksum=sha1(b""))
    touched = set()
    for _ in range(400):
        one.advance(1)
        one.tick()
        touched.add(one.row(upload_id).touched_at)
    assert len(touched) == 5


# Roles


@pytest.fixture
def workers():
    cluster, clock = FakeCluster(), Clock()
    return cluster, clock, [cluster.join(clock) for _ in range(2)]


def asked(roles, clock, role="janitor"):
    found = []
    roles.granted(role).addCallback(found.append)
    clock.advance(0)
    return found[0]


def test_one_worker_has_a_role_as_long_as_it_lives(workers):
    cluster, clock, (one, other) = workers
    roles = [SharedRoles(one, clock), SharedRoles(other, clock)]
    assert asked(roles[0], clock) and not asked(roles[1], clock)
    clock.advance(AGAIN)
    assert asked(roles[0], clock) and not asked(roles[1], clock)
    cluster.bury(one)
    clock.advance(AGAIN)
    assert asked(roles[1], clock)


def test_a_role_of_another_is_asked_for_once_a_second(workers):
    cluster, clock, (one, other) = workers
    roles = [SharedRoles(one, clock), SharedRoles(other, clock)]
    assert asked(roles[0], clock) and not asked(roles[1], clock)
    cluster.bury(one)
    assert not asked(roles[1], clock)
    clock.advance(AGAIN)
    assert asked(roles[1], clock)


def test_a_catalog_that_fails_grants_nothing(workers):
    cluster, clock, (one, _) = workers
    roles = SharedRoles(one, clock)
    cluster.down = True
    assert not asked(roles, clock)
    cluster.down = False
    clock.advance(AGAIN)
    assert asked(roles, clock)


def test_a_stop_gives_roles_back(workers):
    _, clock, (one, other) = workers
    roles = [SharedRoles(one, clock), SharedRoles(other, clock)]
    assert asked(roles[0], clock)
    from twisted.internet.defer import Deferred

    Deferred.fromCoroutine(roles[0].stop())
    clock.advance(0)
    assert asked(roles[1], clock)
    assert not asked(roles[0], clock)
