"""Events that are never answered hold up their owner's alone, however many there are."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from twisted.internet.defer import Deferred

from resumable.events.due_events import FETCH
from resumable.events.interfaces import HookFailed
from resumable.events.pacing import Delivery
from resumable.interfaces import CatalogUnavailable, FactKind
from resumable.letters import IOutbox
from tests.catalog.contract import upload
from tests.catalog.doubles import Shelf
from tests.events.outbox import fact
from tests.events.test_events_courier import FAST, Bench, Recorder, answered

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
    bench.courier.start()
    return bench


@pytest.mark.parametrize("owners", OWNERS)
@pytest.mark.parametrize("waited", [0, 1000])
def test_one_client_s_events_that_hang_do_not_delay_anothers(bench, hook, owners, waited):
    bad, good = OWNERS[owners]
    bench.post(*(fact(f"bad{n}", **bad) for n in range(200)))
    bench.run(waited, 200)
    assert hook.under_way == FAST.concurrency * 3 // 4
    bench.post(*(fact("good", kind, **good) for kind in KINDS))
    assert hook.of("good") == ["created", "finished", "stored"]


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
    bench.courier = bench.make()
    made = iter(range(100))

    def post(*facts):
        catalog.create(upload(next(made)), facts)
        shelf.flush()
        bench.courier.wake()
        settle()

    def settle():
        for _ in range(3 * MANY // FETCH):
            bench.clock.advance(0)
            shelf.flush()

    bench.courier.start()
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
    assert len(hook.arrived) == count and bench.outbox.letters == {}
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
    bench = Bench(hook, Delivery(per_second=inf, give_up_after=0.0, least_attempts=1))
    bench.courier.start()

    bench.post(fact("good", identity="good"))
    hook.answer = hanging
    bench.post(*(fact(f"bad{n}", identity="bad") for n in range(200)))
    assert bench.outbox.replay("hook", None).result == 1
    bench.courier.wake(replayed=True)
    bench.run(0)
    assert hook.of("good") == ["created"]


@pytest.mark.parametrize("seed", range(20))
def test_every_other_letter_arrives_in_order_whatever_fails(seed):
    rng = Random(seed)
    hook = Recorder()

    def answer(event):
        if event.upload.id.startswith("bad"):
            return Deferred()
        if rng.random() < 0.3:
            raise HookFailed("no")
        later = Deferred()
        bench.clock.callLater(rng.random(), later.callback, None)
        return later

    hook.answer = answer
    bench = Bench(hook)
    bench.courier.start()
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
    assert {x.fact.upload_id[:3] for x in bench.outbox.letters.values()} == {"bad"}
