"""Waits for what another worker does: by its message, else by the row within a second; and work that only one does."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, fail

from resumable.model.errors import CatalogUnavailable
from resumable.model.hooks import Answer, Granted
from resumable.model.upload import GoneReason
from resumable.protocol import tus
from resumable.protocol.errors import Gone, Held, Refused, Stopping, Unavailable
from resumable.spool.placed_files import PlaceSettings, parse
from resumable.uploads.assembly import HEARD, RETRY
from resumable.uploads.context import HookContext, Questions
from resumable.uploads.holds import ASSEMBLER, JANITOR
from resumable.uploads.limits import SharedDrain, UploadLimits
from resumable.uploads.other_workers import LOOK, OtherWorkers, final_claim, finish_claim
from resumable.uploads.placing import BATCH
from tests.uploads.cluster_rig import clusters
from tests.uploads.fakes import FakeBody, FakeHooks, FakeReplication
from tests.uploads.harness import Answer as Outcome
from tests.uploads.harness import pattern, told

A, B = pattern(10_000, 1), pattern(3, 2)
NO = Refused(422, {"X-Why": "virus"}, b"a virus")
DATA = b"0123456789"
HOUR = 3600.0
LIMITS = UploadLimits(ack_timeout=20.0, final_timeout=20.0, expire_after=HOUR, retry_after=7)


@pytest.fixture(params=["simulated", pytest.param("postgres", marks=pytest.mark.process)])
def cluster(directory, request):
    """Over a simulated catalog, and over a real one."""
    cluster = clusters(request.param)(directory, deliverers=["outside"])
    yield cluster
    cluster.bury()


def pair(cluster, limits=LIMITS, **options):
    return cluster.engine(limits=limits, **options), cluster.engine(limits=limits, **options)


def asking(cluster, *says, limits=LIMITS):
    """Two engines with the same hooks, which say this before an upload is finished."""
    hooks = FakeHooks(finish=says)
    made = [cluster.engine(limits=limits, questions=Questions(hooks)) for _ in range(2)]
    for each in made:
        each.hooks = hooks
    return made


def kinds(cluster, upload_id):
    return [fact.kind.value for fact in told(cluster.engines[0], "outside") if fact.upload_id == upload_id]


@pytest.fixture(autouse=True)
def outbox(cluster, monkeypatch):
    """`told` looks at the outbox of an engine."""
    from tests.uploads.cluster_rig import Engine

    monkeypatch.setattr(Engine, "catalog", property(lambda self: self.cluster.catalog), raising=False)


# Before an upload is finished


def test_two_workers_ask_about_one_upload_one_after_the_other(cluster):
    """The second one waits for the outcome of the first, and doesn't ask where that was a yes."""
    yes: Deferred[Granted] = Deferred()
    one, other = asking(cluster, yes)
    upload_id = one.create(10).value.id
    first = one.patch(upload_id, 0, DATA)
    second = other.patch(upload_id, 9, DATA[9:])
    assert not first.done and not second.done
    cluster.advance(3)
    assert len(one.hooks.asked) == 1
    yes.callback(Granted())
    cluster.pump()
    assert first.value.finished and second.value.finished
    assert len(one.hooks.asked) == 1
    assert finish_claim(upload_id) not in cluster.claims(), "a claim goes when its work is done"


@pytest.mark.parametrize("lost", [False, True])
def test_who_waits_for_another_workers_question_looks_at_the_row_each_second(cluster, lost):
    yes: Deferred[Granted] = Deferred()
    one, other = asking(cluster, yes)
    upload_id = one.create(10).value.id
    one.patch(upload_id, 0, DATA)
    second = other.patch(upload_id, 9, DATA[9:])
    cluster.fake.held_back = lost
    yes.callback(Granted())
    cluster.pump()
    assert second.done is not lost
    cluster.fake.lose()
    cluster.advance(LOOK)
    assert second.value.finished


def test_after_a_refusal_the_other_worker_asks_for_itself(cluster):
    """As a client that comes back does."""
    answer: Deferred[Granted] = Deferred()
    one, other = asking(cluster, answer, Granted())
    upload_id = one.create(10).value.id
    first = one.patch(upload_id, 0, DATA)
    second = other.patch(upload_id, 9, DATA[9:])
    answer.errback(NO)
    cluster.pump()
    assert first.error is NO
    assert second.value.finished
    assert len(one.hooks.asked) == 2


def test_a_worker_that_dies_while_it_asks_is_followed_by_another(cluster):
    one, other = asking(cluster, Deferred(), Granted())
    upload_id = one.create(10).value.id
    one.patch(upload_id, 0, DATA)
    second = other.patch(upload_id, 9, DATA[9:])
    one.die()
    cluster.advance(LOOK)
    assert second.value.finished


def test_a_worker_that_cannot_read_the_record_does_not_keep_the_claim(cluster):
    """Else nobody else could finish the upload as long as this worker lives."""
    one, other = asking(cluster, NO, Granted())
    upload_id = one.create(10).value.id
    assert one.patch(upload_id, 0, DATA).error is NO
    one.others.claim = lambda name: OtherWorkers.claim(one.others, name).addCallback(catalog_goes)

    def catalog_goes(mine):
        one.context.catalog.get = lambda upload_id: fail(CatalogUnavailable("away"))
        return mine

    assert one.patch(upload_id, 9, DATA[9:]).status == 503
    assert finish_claim(upload_id) not in cluster.claims()
    assert other.patch(upload_id, 9, DATA[9:]).value.finished


def test_another_byte_is_refused_while_a_worker_asks(cluster):
    """From then on no append takes the row; a last byte that comes is compared."""
    one, other = asking(cluster, Deferred())
    upload_id = one.create(10).value.id
    one.patch(upload_id, 0, DATA)
    assert other.head(upload_id).value.offset == 9
    assert other.patch(upload_id, 9, b"x").status == 409


def test_who_waits_for_another_workers_question_is_sent_away_in_time(cluster):
    one, other = asking(cluster, Deferred())
    upload_id = one.create(10).value.id
    one.patch(upload_id, 0, DATA)
    second = other.patch(upload_id, 9, DATA[9:])
    cluster.advance(LIMITS.ack_timeout)
    assert isinstance(second.error, Held) and second.error.headers["Retry-After"]


def test_a_deletion_breaks_off_another_workers_question(cluster):
    one, other = asking(cluster, Deferred(lambda _: None))
    upload_id = one.create(10).value.id
    first = one.patch(upload_id, 0, DATA)
    second = other.patch(upload_id, 9, DATA[9:])
    assert other.delete(upload_id).value is None
    assert isinstance(first.error, Gone) and isinstance(second.error, Gone)


def test_who_hears_that_an_upload_is_gone_tells_nobody(cluster):
    """And leaves the remotes to replication, which hears of it by itself: else messages would never end."""
    one, other = pair(cluster, replication=FakeReplication())
    upload_id = one.upload(DATA)
    one.delete(upload_id)
    assert one.worker.told.count(("ended", upload_id)) == 1
    assert other.worker.told == []
    assert one.context.replication.gone == [upload_id]


def test_a_stop_ends_the_wait_for_another_workers_question(cluster):
    one, other = asking(cluster, Deferred())
    upload_id = one.create(10).value.id
    one.patch(upload_id, 0, DATA)
    second = other.patch(upload_id, 9, DATA[9:])
    other.stop()
    assert isinstance(second.error, Stopping)


# --ack remote


@pytest.mark.parametrize("lost", [False, True])
def test_an_upload_that_another_worker_stores_is_acknowledged(cluster, lost):
    """By its message, or a second later."""
    one, other = pair(cluster, replication=FakeReplication(acknowledges=True))
    upload_id = one.create(10).value.id
    answer = one.patch(upload_id, 0, DATA)
    assert not answer.done
    cluster.fake.held_back = lost
    cluster.store_everywhere(upload_id)
    other.others.tell("news", upload_id)
    cluster.pump()
    assert answer.done is not lost
    cluster.advance(LOOK)
    assert answer.value.stored_at is not None


def test_an_upload_that_another_worker_removes_is_not_waited_for(cluster):
    one, other = pair(cluster, replication=FakeReplication(acknowledges=True))
    upload_id = one.create(10).value.id
    answer = one.patch(upload_id, 0, DATA)
    cluster.fake.held_back = True
    other.delete(upload_id)
    cluster.advance(LOOK)
    assert isinstance(answer.error, Gone)


def test_an_upload_that_nobody_stores_is_waited_for_as_long_as_ever(cluster):
    one, _ = pair(cluster, replication=FakeReplication(acknowledges=True))
    upload_id = one.create(10).value.id
    answer = one.patch(upload_id, 0, DATA)
    cluster.advance(LIMITS.ack_timeout - 0.1)
    assert not answer.done
    cluster.advance(0.1)
    assert isinstance(answer.error, Unavailable)
    assert not any(call.getTime() < one.clock.seconds() + RETRY - 20 for call in one.clock.getDelayedCalls())


# Finals


def parts(engine, *datas):
    return [engine.upload(data, partial=True) for data in datas]


def test_the_same_request_at_two_workers_at_once_makes_one_final(cluster):
    """The unique row decides; the other request is answered for the first one's upload."""
    one, other = pair(cluster)
    ids = parts(one, A, B)
    one.freeze()
    first = Outcome(one.machine, one.uploads.concatenate(*request(ids)))
    second = Outcome(other.machine, other.uploads.concatenate(*request(ids)))
    one.thaw()
    assert first.value.id == second.value.id
    assert first.value.finished and second.value.finished
    assert cluster.content(first.value.id) == A + B
    assert cluster.store.built == [first.value.id], "it is copied once"
    assert kinds(cluster, first.value.id) == ["created", "finished"]


def request(ids):
    from tests.uploads.final_requests import request

    return request(*ids)


@pytest.mark.parametrize("order", range(30))
def test_whoever_comes_first_one_final_is_made_and_copied_once(cluster, order):
    """In each order of their first steps."""
    one, other = pair(cluster)
    ids = parts(one, A, B)
    answers = [Outcome(each.machine, each.uploads.concatenate(*request(ids))) for each in (one, other)]
    number = order
    while due := cluster.due():
        cluster.turn(due[number % len(due)])
        number = number * 5 + 3
    assert answers[0].value.id == answers[1].value.id
    assert len(cluster.store.built) == 1
    assert kinds(cluster, answers[0].value.id) == ["created", "finished"]
    assert [each.context.counts.created for each in (one, other)].count(3) <= 1


def test_a_final_that_another_worker_builds_is_waited_for(cluster):
    """By HEAD, and by the same request; if the builder is declared dead, who waits takes over."""
    one, other = pair(cluster)
    ids = parts(one, A, B)
    first = Outcome(one.machine, one.uploads.concatenate(*request(ids)))
    while not final_of(cluster):
        cluster.turn(cluster.due()[0])
    one.freeze()
    second = Outcome(other.machine, other.uploads.concatenate(*request(ids)))
    head = Outcome(other.machine, other.uploads.inspect(final_of(cluster)))
    cluster.advance(2)
    assert not second.done and not head.done
    one.die()
    cluster.advance(LOOK)
    assert second.value.finished and head.value.finished
    one.thaw()
    assert first.value.id == second.value.id
    assert kinds(cluster, second.value.id) == ["created", "finished"]


@pytest.mark.parametrize("cluster", ["simulated"], indirect=True)
def test_who_waits_for_another_workers_final_goes_on_waiting_while_the_catalog_is_away(cluster):
    one, other = pair(cluster)
    ids = parts(one, A, B)
    Outcome(one.machine, one.uploads.concatenate(*request(ids)))
    while not final_of(cluster):
        cluster.turn(cluster.due()[0])
    one.freeze()
    second = Outcome(other.machine, other.uploads.concatenate(*request(ids)))
    cluster.pump()
    other.context.catalog.away = True
    cluster.advance(LOOK)
    other.context.catalog.away = False
    assert second.status in (None, 503)
    one.thaw()
    cluster.advance(LOOK)
    assert cluster.row(second.made.id).finished


def final_of(cluster):
    """The final that is being built."""
    return next((name.partition(":")[2] for name in cluster.claims() if name.startswith("final:")), "")


def test_a_refusal_at_another_worker_is_the_answer_here_too(cluster):
    answer: Deferred[Granted] = Deferred()
    one, other = asking(cluster, Granted(), Granted(), answer)
    ids = parts(one, A, B)
    first, second = one.concat(*ids), other.concat(*ids)
    assert not first.done and not second.done
    answer.errback(NO)
    cluster.pump()
    assert first.error is NO
    assert (second.error.status, second.error.headers, second.error.body) == (422, NO.headers, NO.body)
    assert len(one.hooks.asked) == 3
    one.hooks.says.clear()
    cluster.advance(HEARD)
    assert one.concat(*ids).value.finished, "it was heard: the same request begins anew"


@pytest.mark.parametrize("lost", [False, True])
def test_a_partial_that_finishes_at_another_worker_lets_the_final_be_built(cluster, lost):
    """Some worker builds it soon, and a HEAD anywhere sees it."""
    one, other = pair(cluster)
    (a,), b = parts(one, A), one.create(len(B), partial=True).value.id
    final = other.concat(a, b).value
    assert not final.finished
    cluster.fake.held_back = lost
    one.patch(b, 0, B)
    assert cluster.row(final.id).finished
    assert cluster.store.built == [final.id]
    assert other.head(final.id).value.offset == len(A + B)


def test_others_hear_of_a_partial_only_where_a_final_waits_for_it(cluster):
    """And those who hear of it tell nobody."""
    one, other = pair(cluster)
    (a,), b = parts(one, A), one.create(len(B), partial=True).value.id
    assert "partial" not in dict(one.worker.told)
    other.concat(a, b)
    one.patch(b, 0, B)
    assert one.worker.told.count(("partial", b)) == 1
    assert "partial" not in dict(other.worker.told)


def test_a_final_that_was_finished_since_it_was_looked_at_is_not_built_again(cluster):
    """Neither copied, nor asked about."""
    one, other = asking(cluster, Granted())
    ids = parts(one, A, B)
    claim, name = other.others.claim, []

    def late(claimed):
        if not name:
            name.append(claimed)
            other.freeze()
            one.head(claimed.partition(":")[2])
            other.frozen = False
        return claim(claimed)

    other.others.claim = late
    final = other.concat(*ids).value
    assert final.finished and name == [final_claim(final.id)]
    assert cluster.store.built == [final.id]
    assert [each for _, each, _ in one.hooks.asked].count(final.id) == 1


def test_a_partial_that_finishes_while_its_worker_stops_is_told_to_the_others(cluster):
    one, other = pair(cluster)
    (a,), b = parts(one, A), one.create(len(B), partial=True).value.id
    final = other.concat(a, b).value
    Deferred.fromCoroutine(one.assembler.stop())
    one.patch(b, 0, B)
    assert cluster.row(final.id).finished


def test_finals_of_a_worker_that_died_are_taken_up_by_the_assembler(cluster):
    """When it is told that a worker was buried, else with its next round."""
    one, other = pair(cluster)
    assert cluster.claims()[ASSEMBLER] == one.worker.id
    for told_so in (True, False):
        ids = parts(other, A + bytes([told_so]), B)
        Outcome(other.machine, other.uploads.concatenate(*request(ids)))
        while not final_of(cluster):
            cluster.turn(cluster.due()[0])
        final = final_of(cluster)
        cluster.fake.held_back = not told_so
        other.die()
        cluster.pump()
        assert cluster.row(final).finished == told_so
        cluster.fake.lose()
        cluster.fake.held_back = False
        cluster.advance(RETRY)
        assert cluster.row(final).finished
        assert cluster.row(final).finished
        other = cluster.engine(limits=LIMITS)


def test_another_worker_assembles_when_the_assembler_is_gone(cluster):
    one, other = pair(cluster)
    one.die()
    cluster.advance(RETRY)
    assert cluster.claims()[ASSEMBLER] == other.worker.id


# The janitor, with two of them at once


def test_two_janitors_at_once_end_each_upload_once(cluster):
    one, other = pair(cluster)
    ids = [one.upload(b"x", length=10) for _ in range(20)]
    cluster.advance(HOUR + 1)
    rounds = [Outcome(each.machine, Deferred.fromCoroutine(each.janitor.sweep())) for each in (one, other)]
    cluster.pump()
    assert all(each.done and each.error is None for each in rounds)
    assert sum(each.context.counts.gone[GoneReason.EXPIRED] for each in (one, other)) == 20
    facts = [fact for fact in told(one, "outside") if fact.kind.value == "expired"]
    assert sorted(fact.upload_id for fact in facts) == sorted(ids)


def test_a_final_that_another_worker_builds_does_not_expire(cluster):
    one, other = pair(cluster)
    (a,), b = parts(one, A), one.create(len(B), partial=True).value.id
    final = other.concat(a, b).value
    cluster.advance(HOUR + 1)
    one.ask(one.claims.take(final_claim(final.id)))
    other.sweep()
    assert cluster.row(final.id).gone is None
    one.ask(one.claims.drop(final_claim(final.id)))
    other.sweep()
    assert cluster.row(final.id).gone is GoneReason.EXPIRED


@pytest.mark.parametrize("lost", [False, True])
def test_only_the_janitor_places_files(cluster, lost):
    """It hears of a file that another worker has finished; else it finds that with its next round."""
    one, other = pair(cluster)
    placed = []
    for each in (one, other):
        each.uploads.placer._place_some = each_some(each, placed)
        each.context.places._settings = PlaceSettings(Path("/shared/finished"), parse("{id}"))
        each.ask(each.roles.granted(JANITOR))
    cluster.fake.held_back = lost
    other.uploads.placer._planned("an-upload")
    cluster.pump()
    assert placed == ([] if lost else [(one, ["an-upload"])])
    other.uploads.placer.sweep()
    cluster.pump()
    assert len(placed) == (not lost)
    one.uploads.placer.sweep()
    cluster.pump()
    assert placed[-1] == (one, [])


def each_some(engine, placed):
    async def place_some():
        background = engine.uploads.placer._background
        placed.append((engine, background.take(BATCH)))
        assert not background.take(BATCH)
        return 0

    return place_some


# What each worker has for itself


def test_a_status_shows_what_its_own_worker_receives(cluster):
    """The durable offset is the same everywhere."""
    one, other = pair(cluster)
    upload_id = one.create(1 << 20).value.id
    body = FakeBody(1 << 20)
    one.patch(upload_id, 0, body)
    body.arrive(A)
    here, there = (each.ask(each.uploads.status(upload_id)).value for each in (one, other))
    assert (here.received, here.durable, here.appending) == (len(A), 0, True)
    assert (there.received, there.durable, there.appending) == (0, 0, False)


def test_each_upload_is_counted_by_one_worker(cluster):
    one, other = pair(cluster)
    upload_id = one.create(10).value.id
    other.patch(upload_id, 0, DATA)
    one.delete(upload_id)
    assert one.head(upload_id).done and isinstance(other.delete(upload_id).error, Gone)
    counts = [each.context.counts for each in (one, other)]
    assert [each.created for each in counts] == [1, 0]
    assert [each.finished for each in counts] == [0, 1]
    assert [each.gone[GoneReason.TERMINATED] for each in counts] == [1, 0]


def test_a_deletion_at_two_workers_at_once_is_one(cluster):
    one, other = pair(cluster)
    upload_id = one.upload(DATA)
    answers = [Outcome(each.machine, each.uploads.terminate(upload_id)) for each in (one, other)]
    cluster.pump()
    assert sorted(answer.status or 0 for answer in answers) == [0, 410]
    assert sum(each.context.counts.gone[GoneReason.TERMINATED] for each in (one, other)) == 1
    assert kinds(cluster, upload_id) == ["created", "finished", "terminated"]


def test_what_a_hook_adds_to_an_answer_goes_to_the_client_whose_worker_has_asked(cluster):
    answer: Deferred[Granted] = Deferred()
    one, other = asking(cluster, answer)
    upload_id = one.create(10).value.id
    contexts = [HookContext(), HookContext()]
    for each, hooks, start in zip((one, other), contexts, (0, 9), strict=True):
        request = tus.Append(start, None, None, False)
        each.ask(each.uploads.append(upload_id, request, each._sent(FakeBody.whole(DATA[start:])), hooks=hooks))
    answer.callback(Granted(answer=Answer(headers={"X-Scan": "clean"})))
    cluster.pump()
    assert [dict(hooks.answer.headers) for hooks in contexts] == [{"X-Scan": "clean"}, {}]
    assert cluster.row(upload_id).finished


# Drain


def test_a_drain_at_one_worker_drains_all_and_the_next_one_that_starts(cluster):
    one, other = pair(cluster)
    cluster.advance(5)
    one.ask(one.drain.begin(one.context.wall))
    began = one.drain.since
    assert began is not None and other.drain.since == began
    assert isinstance(other.create(10).error, Unavailable)
    late = cluster.engine()
    late.ask(late.drain.look())
    assert late.drain.since == began
    other.ask(other.drain.begin(other.context.wall))
    assert other.drain.since == began, "again changes nothing"
    other.ask(other.drain.end())
    assert one.drain.since is None and other.create(10).value


def test_a_drain_is_seen_without_a_message_with_the_next_look(cluster):
    one, other = pair(cluster)
    cluster.fake.held_back = True
    one.ask(one.drain.begin(one.context.wall))
    assert other.drain.since is None
    other.ask(other.drain.look())
    assert other.drain.since is not None


@pytest.mark.parametrize("cluster", ["simulated"], indirect=True)
def test_a_drain_stays_as_it_was_known_while_the_catalog_fails(cluster):
    one, _ = pair(cluster)
    one.ask(one.drain.begin(one.context.wall))
    cluster.fake.down = True
    one.ask(one.drain.look())
    assert one.drain.since is not None
    assert isinstance(one.ask(one.drain.end()).error, CatalogUnavailable)
    assert one.drain.since is not None


def test_a_look_that_began_before_a_change_does_not_undo_it():
    asked: list[Deferred[float | None]] = []

    class Record:
        def draining_since(self):
            asked.append(Deferred())
            return asked[-1]

        def drain(self, since):
            return Deferred.fromCoroutine(done())

    async def done():
        return None

    drain = SharedDrain(Record(), lambda: None)
    drain.look()
    drain.begin(lambda: 5.0)
    asked[1].callback(5.0)
    asked[0].callback(None)
    assert drain.since == 5.0
