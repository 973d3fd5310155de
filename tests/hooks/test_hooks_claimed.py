"""Of several workers that share an outbox, one delivers the events of a hook, and another after its death."""

from __future__ import annotations

from random import Random

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from resumable.hooks.claimed import ALL_EVERY, LocalDeliverers, SharedDeliverers, SharedHooks
from resumable.hooks.deliver import Deliverer
from resumable.hooks.interfaces import HookFailed
from resumable.model.errors import CatalogUnavailable
from resumable.model.outbox import OutboxEvent
from resumable.model.upload import FactKind
from tests.cluster import Cluster
from tests.hooks.delivering import FAST, Recorder
from tests.hooks.outbox import MemoryOutbox, fact

FINISHED, TERMINATED = FactKind.FINISHED, FactKind.TERMINATED


class Worker:
    """One worker's deliverers of these hooks. ``hooks``: what they deliver to, by name."""

    def __init__(self, room, name, hooks):
        self.room = room
        self.name = name
        self.member = room.cluster.join(name)
        self.hooks = {hook: Recorder() for hook in hooks}
        self.clock = Clock()
        self.deliverers = SharedDeliverers(
            [
                Deliverer(
                    hook, recorder, room.outbox, clock=self.clock, wall=self.clock.seconds, rng=Random(1), policy=FAST
                )
                for hook, recorder in self.hooks.items()
            ],
            SharedHooks(self.member, self.member),
            self.clock,
        )
        self.deliverers.start()
        room.workers.append(self)
        room.run(0)

    def post(self, *facts):
        """It commits them."""
        self.room.outbox.post(*facts)
        self.deliverers.wake()
        self.room.run(0)

    def got(self, hook="hook"):
        return [event.kind.value for event in self.hooks[hook].arrived]

    def die(self):
        self.room.cluster.die(self.name)
        self.room.workers.remove(self)


class Room:
    def __init__(self, hooks=("hook",)):
        self.names = hooks
        self.cluster = Cluster()
        self.outbox = MemoryOutbox(hooks)
        self.workers = []

    def worker(self, name):
        return Worker(self, name, self.names)

    def run(self, seconds, steps=20):
        for _ in range(steps):
            for worker in list(self.workers):
                worker.clock.advance(seconds / steps)


@pytest.fixture
def room():
    return Room()


def test_one_worker_delivers_the_facts_of_all(room):
    one, two = room.worker("one"), room.worker("two")
    two.post(fact("u"))
    one.post(fact("u", FINISHED))
    assert one.got() == ["created", "finished"] and two.got() == []
    assert room.outbox.events == {}


def test_each_hook_has_a_claim_of_its_own():
    room = Room(("a", "b"))
    room.cluster.holders["hook:b"] = "somebody"
    one = room.worker("one")
    one.post(fact("u"))
    assert one.got("a") == ["created"] and one.got("b") == []


def test_the_worker_that_delivers_everything_tells_nobody_of_its_facts(room):
    one, two = room.worker("one"), room.worker("two")
    one.post(fact("u"))
    assert room.cluster.told == []
    two.post(fact("v"))
    assert room.cluster.told == [("two", None, "facts", "")]


def test_many_facts_are_few_messages_and_the_last_is_told(room):
    one, two = room.worker("one"), room.worker("two")
    for number in range(100):
        two.post(fact(f"u{number}"))
    assert room.cluster.topics() == ["facts"]
    room.run(0.2)
    assert room.cluster.topics() == ["facts", "facts"]
    room.run(0.5)
    assert len(one.got()) == 100 and room.cluster.topics() == ["facts", "facts"]


def test_a_lost_message_delays_an_event_by_a_second(room):
    one, two = room.worker("one"), room.worker("two")
    room.cluster.lossy = True
    two.post(fact("u"))
    assert one.got() == []
    room.run(1.1)
    assert one.got() == ["created"]


def test_another_worker_takes_over_after_a_death(room):
    one = room.worker("one")
    one.hooks["hook"].answer = lambda event: Deferred()
    two = room.worker("two")
    one.post(fact("u"), fact("u", FINISHED))
    assert len(one.hooks["hook"].came) == 1 and one.got() == []
    one.die()
    room.run(1.1)
    assert two.got() == ["created", "finished"]
    # what the dead one had under way comes again, as the same event
    assert two.hooks["hook"].came[0] == one.hooks["hook"].came[0]


def test_a_worker_that_stops_hands_over_at_once(room):
    one, two = room.worker("one"), room.worker("two")
    answer = Deferred()
    one.hooks["hook"].answer = lambda event: answer
    one.post(fact("u"))
    stopped = Deferred.fromCoroutine(one.deliverers.stop())
    room.outbox.post(fact("v"))
    assert two.member.asked == 1 and not stopped.called  # its last event isn't recorded yet
    answer.callback(None)
    room.run(0)
    assert stopped.called and one.got() == ["created"]
    assert two.got() == ["created"] and two.member.asked == 2
    assert room.outbox.events == {}


def test_a_worker_without_the_claim_stops_at_once_and_gives_nothing_back(room):
    one, two = room.worker("one"), room.worker("two")
    assert Deferred.fromCoroutine(two.deliverers.stop()).called
    one.post(fact("u"))
    assert one.got() == ["created"] and room.cluster.holders == {"hook:hook": "one"}


def test_after_a_stop_nothing_is_asked_or_told(room):
    one, two = room.worker("one"), room.worker("two")
    Deferred.fromCoroutine(two.deliverers.stop())
    asked = two.member.asked
    two.post(fact("u"))
    one.die()
    room.run(5)
    assert two.member.asked == asked and "facts" not in room.cluster.topics()
    assert two.clock.getDelayedCalls() == []


def test_the_claim_is_asked_for_each_second_until_it_is_granted(room):
    one, two = room.worker("one"), room.worker("two")
    room.run(10, 100)
    assert two.member.asked in (10, 11) and one.member.asked == 1


def test_a_catalog_that_fails_is_asked_again(room, logged):
    room.cluster.holders["hook:hook"] = "somebody"
    one = room.worker("one")
    one.member.broken = CatalogUnavailable("gone")
    room.run(3.1, 31)
    assert [each["log_format"] for each in logged].count("hook {hook}: who delivers is not known: {reason}") == 1
    one.member.broken = None
    del room.cluster.holders["hook:hook"]
    room.run(1.1)
    one.post(fact("u"))
    assert one.got() == ["created"]


def late(room, seq, event):
    """A transaction that has taken its number before others, and is committed after them."""
    room.outbox.events[seq] = OutboxEvent(seq, "hook", event)


def test_an_event_that_is_committed_after_one_with_a_higher_number_is_found(room):
    one, two = room.worker("one"), room.worker("two")
    room.outbox._seq = 10
    two.post(fact("v"))
    assert one.got() == ["created"]
    late(room, 5, fact("u", FINISHED))
    room.run(1.1)
    assert one.got() == ["created", "finished"]


def test_one_that_may_go_late_goes_as_soon_as_some_worker_says_so(room):
    one, two = room.worker("one"), room.worker("two")
    room.outbox._seq = 10
    two.post(fact("v"))
    late(room, 5, fact("u", FINISHED))
    two.deliverers.late()
    room.run(0.2)
    assert one.got() == ["created", "finished"] and set(room.cluster.topics()) == {"facts", "late"}
    late(room, 6, fact("w", TERMINATED))
    one.deliverers.late()
    room.run(0)
    assert one.got() == ["created", "finished", "terminated"]


def test_one_that_is_committed_very_late_is_found_too(room):
    one, two = room.worker("one"), room.worker("two")
    room.outbox._seq = 10
    for _ in range(15):
        two.post(fact("v"))
        room.run(1.0)
    assert len(one.got()) == 15
    late(room, 5, fact("u", TERMINATED))
    room.run(ALL_EVERY + 1, 200)
    assert one.got()[-1] == "terminated"


def test_late_events_are_found_while_others_hang(room):
    one, two = room.worker("one"), room.worker("two")
    room.outbox._seq = 100
    one.hooks["hook"].answer = lambda event: Deferred() if event.upload.id.startswith("slow") else None
    two.post(*(fact(f"slow{number}", identity="a") for number in range(20)))
    late(room, 7, fact("u", identity="b"))
    room.run(3)
    assert one.hooks["hook"].of("u") == ["created"]


def test_nothing_is_read_over_and_over_when_nothing_comes(room):
    one, _ = room.worker("one"), room.worker("two")
    one.post(fact("u"))
    room.run(1)
    before = room.outbox.asked
    room.run(20, 200)
    assert room.outbox.asked - before <= 42


def test_a_replay_at_any_worker_reaches_the_one_that_delivers(room):
    one, two = room.worker("one"), room.worker("two")

    def no(event):
        raise HookFailed("no")

    one.hooks["hook"].answer = no
    two.post(fact("u"))
    (seq,) = room.outbox.events
    room.outbox.bury(seq, "no", 0.0)
    two.post(fact("v", FINISHED))
    one.hooks["hook"].answer = lambda event: None
    room.outbox.replay("hook", None)
    two.deliverers.wake(replayed=True)
    room.run(1)
    assert "created" in one.got() and ("two", None, "replayed", "") in room.cluster.told


def test_a_single_worker_asks_nobody():
    clock, outbox, hook = Clock(), MemoryOutbox(), Recorder()
    deliverer = Deliverer("hook", hook, outbox, clock=clock, wall=clock.seconds, rng=Random(1), policy=FAST)
    deliverers = LocalDeliverers([deliverer])
    deliverers.start()
    outbox.post(fact("u"))
    deliverers.wake()
    clock.advance(0)
    assert hook.of("u") == ["created"]
    assert Deferred.fromCoroutine(deliverers.stop()).called and clock.getDelayedCalls() == []
