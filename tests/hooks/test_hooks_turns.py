"""Events that are never answered hold up their owner's alone, however many there are."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from twisted.internet.defer import Deferred

from resumable.hooks import due_events
from resumable.hooks.due_events import FETCH
from resumable.hooks.interfaces import EventKind, HookFailed
from resumable.hooks.retry_policy import RetryPolicy
from resumable.model.errors import CatalogUnavailable
from resumable.model.outbox import IOutbox
from resumable.model.upload import FactKind
from tests.catalog.contract import upload
from tests.catalog.doubles import Shelf
from tests.hooks.delivering import FAST, Bench, Recorder, answered, unsteady
from tests.hooks.outbox import fact

KINDS = (FactKind.CREATED, FactKind.FINISHED, FactKind.STORED)


def sent_from(address):
    request = {"method": "POST", "uri": "/files", "address": address, "headers": {}}
    return {"request": request}


OWNERS = {
    "identities": ({"identity": "bad"}, {"identity": "good"}),
    "addresses": (sent_from("2001:db8::1"), sent_from("2001:db8:0:1::1")),
    "a name": (sent_from("192.0.2.1"), {"identity": "192.0.2.1", **sent_from("192.0.2.1")}),
    "nobody's": ({}, sent_from("192.0.2.1")),
}


def hanging(event):
    """No event of a ``bad`` upload is ever answered."""
    return Deferred() if event.upload.id.startswith("bad") else None


@pytest.fixture
def hook():
    return Recorder(hanging)


@pytest.fixture
def bench(hook):
    bench = Bench(hook)
    bench.deliverer.start()
    return bench


@pytest.mark.parametrize("owners", OWNERS)
@pytest.mark.parametrize(("waited", "places"), [(0, FAST.concurrency * 3 // 4), (1000, FAST.concurrency // 2)])
def test_one_client_s_events_that_hang_do_not_delay_anothers(bench, hook, owners, waited, places):
    bad, good = OWNERS[owners]
    bench.post(*(fact(f"bad{n}", **bad) for n in range(200)))
    bench.run(waited, 200)
    assert hook.under_way == places
    bench.post(*(fact("good", kind, **good) for kind in KINDS))
    assert hook.of("good") == ["created", "finished", "stored"]


@pytest.mark.parametrize("owner", [{}, {"identity": "one"}, sent_from("192.0.2.1")])
@pytest.mark.parametrize("count", [20, 100, 1000])
@pytest.mark.parametrize("waited", [0, 1, 40, 1000])
def test_those_that_hang_do_not_delay_others_of_the_same_owner(bench, hook, owner, count, waited):
    bench.post(*(fact(f"bad{n}", kind, **owner) for n in range(count) for kind in KINDS))
    bench.run(waited, 100)
    bench.post(*(fact(f"good{n}", kind, **owner) for n in range(3) for kind in KINDS))
    bench.run(3 * FAST.timeout + 1, 182)
    for n in range(3):
        assert hook.of(f"good{n}") == ["created", "finished", "stored"]


def test_newer_ones_of_the_same_owner_hide_none_that_waited_before(bench, hook):
    """The hook is too slow for all, so that there are always newer ones."""

    def answer(event):
        later = Deferred()
        bench.clock.callLater(10, later.callback, None)
        return later

    hook.answer = answer
    bench.post(*(fact(f"first{n}", identity="one") for n in range(3 * FETCH)))
    for n in range(350):
        bench.post(fact(f"then{n}", identity="one"))
        bench.run(2, 4)
    assert all(hook.of(f"first{n}") for n in range(3 * FETCH))
    assert sum(len(hook.of(f"then{n}")) for n in range(350)) > 200


@pytest.mark.parametrize(("owners", "places", "time_outs"), [(1, 1, 4), (1, 2, 2), (2, 2, 8), (4, 8, 4), (6, 8, 7)])
def test_of_several_owners_that_hang_each_one_s_newest_has_its_turn(owners, places, time_outs):
    for owner in range(owners):
        hook = Recorder(hanging)
        bench = Bench(hook, RetryPolicy(per_second=inf, concurrency=places))
        bench.deliverer.start()
        bench.post(*crowd(owners, 60))
        bench.run(600, 600)
        bench.post(fact("good", identity=f"bad{owner}"))
        bench.run(time_outs * FAST.timeout, time_outs * 60)
        assert hook.of("good") == ["created"]


def test_what_follows_takes_no_place_if_its_owner_hangs(bench, hook):
    """The events of one upload may have several owners: here ``stored`` is nobody's, and hangs."""
    hook.answer = lambda event: Deferred() if event.kind is EventKind.STORED else None
    bench.post(*(fact(f"w{n}", FactKind.STORED) for n in range(20)))
    bench.run(100, 200)
    for n in range(50):
        client = sent_from(f"192.0.2.{n}")
        bench.post(*(fact(f"u{n}", kind, **client) for kind in KINDS[:2]), fact(f"u{n}", FactKind.STORED))
        bench.run(1, 4)
        assert hook.of(f"u{n}") == ["created", "finished"]
        assert hook.under_way == FAST.concurrency // 2


def test_what_failed_has_its_turn_though_its_owner_has_others_under_way(bench, hook):
    bench.post(*crowd(5, 60))
    bench.run(1200, 600)
    failed = []

    def answer(event):
        if event.upload.id == "special" and not failed:
            failed.append(event)
            raise HookFailed("it answered 500")
        later = Deferred()
        bench.clock.callLater(1, later.callback, None)
        return hanging(event) or later

    hook.answer = answer
    bench.post(fact("special", identity="busy"))
    for n in range(240):
        bench.post(fact(f"u{n}", identity="busy"))
        bench.run(0.5, 2)
    assert hook.of("special") == ["created"]


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_replayed_while_the_next_of_its_upload_is_under_way_is_not_forgotten(fails):
    hook = Recorder(answered)
    bench = Bench(hook, RetryPolicy(per_second=inf, give_up_after=0.0, least_attempts=1))
    bench.deliverer.start()
    bench.post(fact("good", identity="good"))
    bench.deliverer._policy = FAST
    last = Deferred()
    hook.answer = lambda event: (
        hanging(event) or (last if event.kind is EventKind.FINISHED and not last.called else None)
    )
    bench.post(*(fact(f"bad{n}", identity="bad") for n in range(200)))
    bench.post(fact("good", FactKind.FINISHED, identity="good"))
    assert bench.outbox.replay("hook", None).result == 1
    bench.deliverer.wake(replayed=True)
    bench.run(2)
    last.errback(HookFailed("no")) if fails else last.callback(None)
    bench.run(2 * FAST.timeout, 120)
    assert sorted(hook.of("good")) == ["created", "finished"]


def test_what_is_behind_a_dead_one_goes_at_once_whose_ever_it_is(bench, hook):
    hook.answer = lambda event: (
        failing() if event.kind is EventKind.CREATED and event.upload.id == "good" else hanging(event)
    )
    bench.deliverer._policy = RetryPolicy(per_second=inf, give_up_after=0.0, least_attempts=1)
    bench.post(*(fact(f"bad{n}", identity="bad") for n in range(100)))
    bench.post(
        fact("good", identity="bad"), fact("good", FactKind.FINISHED, identity="good"), fact("bad", identity="bad")
    )
    bench.run(FAST.timeout + 1, 62)
    assert hook.of("good") == ["finished"]


def test_who_comes_last_is_next_after_several_whose_events_hang(bench, hook):
    bench.post(*(fact(f"bad{owner}-{n}", identity=f"bad{owner}") for n in range(100) for owner in range(3)))
    bench.post(fact("good", identity="good"))
    assert hook.under_way == FAST.concurrency
    bench.run(FAST.timeout + 1)
    assert hook.of("good") == ["created"]


def test_an_address_of_ipv6_counts_by_its_64(bench, hook):
    bench.post(*(fact(f"bad{n}", **sent_from(f"2001:db8::{n:x}")) for n in range(200)))
    assert hook.under_way == FAST.concurrency * 3 // 4


def test_those_that_have_failed_count_too(bench, hook):
    hook.answer = answered
    bench.post(*(fact(f"bad{n}", identity="bad") for n in range(20)))
    hook.answer = hanging
    bench.run(2)
    assert hook.under_way == FAST.concurrency // 2
    bench.post(*(fact(f"bad and new{n}", identity="bad") for n in range(200)))
    assert hook.under_way == FAST.concurrency * 3 // 4
    bench.post(fact("good", identity="good"))
    assert hook.of("good") == ["created"]


def test_one_that_failed_once_goes_again_before_another_clients_that_hang(bench, hook):
    bench.post(*(fact(f"bad{n}", identity="bad") for n in range(2000)))
    bench.run(3600, 3600)
    hook.answer = answered
    bench.post(fact("good", identity="good"))
    hook.answer = hanging
    bench.run(3 * FAST.timeout, 90)
    assert hook.of("good") == ["created"]


MANY = 10_000


def test_many_rows_of_one_client_hide_nobody_elses(tmp_path, hook):
    shelf = Shelf(tmp_path)
    catalog = shelf.running(deliverers=["hook"])
    bench = Bench(hook)
    bench.outbox = catalog.outbox
    bench.deliverer = bench.make()
    made = iter(range(100))

    def post(*facts):
        catalog.create(upload(next(made)), facts)
        shelf.flush()
        bench.deliverer.wake()
        settle()

    def settle():
        for _ in range(3 * MANY // FETCH):
            bench.clock.advance(0)
            shelf.flush()

    bench.deliverer.start()
    post(*(fact(f"bad{n}", identity="bad") for n in range(MANY)))
    assert hook.under_way == FAST.concurrency * 3 // 4
    post(fact("good", identity="good"), fact("good", FactKind.FINISHED, identity="good"))
    assert hook.of("good") == ["created", "finished"]
    assert IOutbox.providedBy(catalog.outbox) and catalog.stop().called


def test_what_was_read_is_not_read_again_and_again(bench, hook):
    read = []
    due = bench.outbox.due
    bench.outbox.due = lambda *given: due(*given).addCallback(lambda found: read.extend(found) or found)
    waiting = []
    hook.answer = lambda event: waiting.append(Deferred()) or waiting[-1]
    count = 40 * FETCH
    bench.post(*(fact(f"u{n}", identity="one") for n in range(count)))
    while waiting:
        for each in waiting[:]:
            waiting.remove(each)
            each.callback(None)
        bench.run(0, 4)
    assert len(hook.arrived) == count and bench.outbox.events == {}
    assert len(read) < 2.5 * count


def test_what_follows_is_found_though_it_was_passed_over(bench, hook):
    """Once the first of an upload has arrived the next one may go: it is among those that were read already."""
    gate = Deferred()
    hook.answer = lambda event: gate if event.upload.id == "good" and not gate.called else hanging(event)
    for n in range(300):
        bench.post(fact(f"bad{n}", identity="bad"))
        if n in (10, 90, 100):
            bench.post(fact("good", KINDS[(10, 90, 100).index(n)], identity="good"))
    gate.callback(None)
    bench.run(0)
    assert hook.of("good") == ["created", "finished", "stored"]


def test_what_is_replayed_is_found_in_front_of_what_hangs():
    hook = Recorder(answered)
    bench = Bench(hook, RetryPolicy(per_second=inf, give_up_after=0.0, least_attempts=1))
    bench.deliverer.start()

    bench.post(fact("good", identity="good"))
    hook.answer = hanging
    bench.post(*(fact(f"bad{n}", identity="bad") for n in range(200)))
    assert bench.outbox.replay("hook", None).result == 1
    bench.deliverer.wake(replayed=True)
    bench.run(0)
    assert hook.of("good") == ["created"]


@pytest.mark.parametrize("seed", range(20))
def test_every_other_event_arrives_in_order_whatever_fails(seed):
    rng = Random(seed)
    hook = Recorder(lambda event: hanging(event) or unsteady(bench, rng))
    bench = Bench(hook)
    bench.deliverer.start()
    wanted = {f"u{n}": n % 4 for n in range(15)}
    for kind in KINDS:
        for name, owner in wanted.items():
            bench.post(*(fact(f"bad{name}{kind.value}{n}", identity="bad") for n in range(20)))
            bench.post(fact(name, kind, identity=f"owner {owner}"))
            if rng.random() < 0.2:
                bench.outbox.broken = CatalogUnavailable("x")
                bench.run(1)
                bench.outbox.broken = None
    bench.run(200, 1000)
    for name in wanted:
        assert list(dict.fromkeys(hook.of(name))) == ["created", "finished", "stored"]
    assert {x.fact.upload_id[:3] for x in bench.outbox.events.values()} == {"bad"}


CROWDS = ((13, 60), (41, 5), (150, 20))


def crowd(owners, each):
    return [fact(f"bad{owner}-{n}", identity=f"bad{owner}") for owner in range(owners) for n in range(each)]


@pytest.mark.parametrize(("owners", "each"), CROWDS)
@pytest.mark.parametrize("waited", [0, 1, 1000])
def test_many_owners_whose_events_hang_do_not_delay_a_newcomer(bench, hook, owners, each, waited):
    bench.post(*crowd(owners, each))
    bench.run(0, 200)
    bench.run(waited, 200)
    bench.post(fact("good", identity="good"), fact("good", FactKind.FINISHED, identity="good"))
    bench.run(FAST.timeout + 1, 62)
    assert hook.of("good")[:1] == ["created"]
    bench.run(FAST.timeout + 1, 62)
    assert hook.of("good") == ["created", "finished"]


@pytest.mark.parametrize("places", [1, 2, 3])
def test_nor_do_they_for_long_where_there_are_few_places(hook, places):
    bench = Bench(hook, RetryPolicy(per_second=inf, concurrency=places))
    bench.deliverer.start()
    bench.post(*crowd(60, 5))
    bench.post(fact("good", identity="good"))
    bench.run(4 * FAST.timeout + 1, 242)
    assert hook.of("good") == ["created"]


def test_once_those_are_known_newcomers_go_at_once_one_after_the_other(bench, hook):
    bench.post(*crowd(41, 60))
    bench.run(20 * FAST.timeout, 600)
    for n in range(20):
        bench.post(fact(f"good{n}", identity=f"good{n}"), fact(f"good{n}", FactKind.FINISHED, identity=f"good{n}"))
        bench.run(1.5, 4)
        assert hook.of(f"good{n}") == ["created", "finished"]


def test_newcomers_that_come_one_after_the_other_go_within_a_time_out(bench, hook):
    bench.post(*crowd(200, 5))
    for n in range(10):
        bench.post(fact(f"good{n}", identity=f"good{n}"))
        bench.run(FAST.timeout + 1, 62)
        assert hook.of(f"good{n}") == ["created"]


def test_what_is_here_is_bounded_however_many_owners_hang(monkeypatch):
    monkeypatch.setattr(due_events, "READ_AHEAD", 100)
    monkeypatch.setattr(due_events, "HANGING", 50)
    bench = Bench(Recorder(hanging))
    bench.deliverer.start()
    bench.post(*crowd(1000, 4))
    most = 0
    for _ in range(600):
        bench.run(1, 4)
        most = max(most, len(bench.deliverer._due._taken))
        assert len(bench.deliverer._due.turns.hanging) <= 50
    assert 200 <= most <= 300


def test_whose_event_was_answered_again_hangs_no_longer(bench, hook):
    waiting = []
    hook.answer = lambda event: waiting.append(Deferred()) or waiting[-1]
    bench.post(fact("first", identity="one"))
    bench.run(FAST.timeout + 1)
    bench.post(*(fact(f"u{n}", identity="one") for n in range(20)))
    assert hook.under_way == FAST.concurrency // 2
    waiting[-1].errback(HookFailed("it answered 500"))
    bench.run(0)
    assert hook.under_way == FAST.concurrency * 3 // 4


def failing():
    raise HookFailed("it answered 500")


def test_what_fails_fast_hangs_not(bench, hook):
    hook.answer = lambda event: failing() if event.upload.id.startswith("no") else Deferred()
    bench.post(*(fact(f"no{n}", identity="one") for n in range(20)))
    bench.post(*(fact(f"bad{n}", identity="one") for n in range(20)))
    assert hook.under_way == FAST.concurrency * 3 // 4


def test_one_event_that_hangs_now_and_then_does_not_slow_its_owners_others(bench, hook):
    """Everybody behind one address; one event in thirty is never answered, others take a second."""

    def answer(event):
        later = Deferred()
        if not event.upload.id.endswith("7") or int(event.upload.id[1:]) % 30 != 7:
            bench.clock.callLater(1, later.callback, None)
        return later

    hook.answer = answer
    bench.post(*(fact(f"u{n}", identity="one") for n in range(3000)))
    bench.run(600, 1200)
    assert len(hook.arrived) > 600  # were none of them known to hang it would be 680


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_lost_or_doubled_whoever_hangs_and_for_how_long(monkeypatch, seed):
    rng = Random(seed)
    if seed % 2:  # with little room
        for name, count in (("FETCH", 6), ("SLOW", 2), ("READ_AHEAD", 20), ("HANGING", 5)):
            monkeypatch.setattr(due_events, name, count)
    until = {f"owner{n}": rng.choice((0, 0, 100, 400)) for n in range(16)}
    under_way = set()

    def answer(event):
        assert event.upload.id not in under_way
        under_way.add(event.upload.id)
        later = Deferred(lambda _: under_way.discard(event.upload.id))
        if bench.clock.seconds() >= until[event.upload.identity]:
            bench.clock.callLater(rng.random(), answer_now, event, later)
        return later

    def answer_now(event, later):
        if not later.called:
            under_way.discard(event.upload.id)
            later.errback(HookFailed("no")) if rng.random() < 0.1 else later.callback(None)

    hook = Recorder(answer)
    bench = Bench(hook)
    bench.deliverer.start()
    names = [(f"{owner}-{n}", owner) for owner in until for n in range(rng.choice((1, 3, 40)))]
    rng.shuffle(names)
    for kind in KINDS:
        for name, owner in names:
            bench.outbox.post(fact(name, kind, identity=owner))
        bench.deliverer.wake()
        bench.run(rng.choice((0, 1, 100)))
        if rng.random() < 0.3:
            bench.outbox.broken = CatalogUnavailable("x")
            bench.run(1)
            bench.outbox.broken = None
    bench.run(4000, 4000)
    assert bench.outbox.events == {}
    for name, _ in names:
        assert list(dict.fromkeys(hook.of(name))) == ["created", "finished", "stored"]
