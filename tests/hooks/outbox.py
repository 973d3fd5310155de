"""An outbox in memory, and what every outbox promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from resumable.model.outbox import Depth, IOutbox, OutboxEvent
from resumable.model.upload import Fact, FactKind


@implementer(IOutbox)
class MemoryOutbox:
    """Keeps events as the catalog does. ``broken`` is what everything fails with, ``asked`` counts calls of `due`."""

    def __init__(self, deliverers: Sequence[str] = ("hook",)) -> None:
        self.events: dict[int, OutboxEvent] = {}
        self.deliverers = tuple(deliverers)
        self.broken: Exception | None = None
        self.asked = 0
        self._seq = 0

    def post(self, *facts: Fact) -> list[int]:
        """What a commit of these facts writes; the numbers of the events."""
        first = self._seq + 1
        for fact in facts:
            for name in self.deliverers:
                self._seq += 1
                self.events[self._seq] = OutboxEvent(self._seq, name, fact)
        return list(range(first, self._seq + 1))

    def due(self, deliverer, now, limit, again=None, after=0):
        self.asked += 1
        oldest = self._oldest(deliverer)
        fresh = [x for x in oldest if x.retry_at is None and x.seq > after][:limit]
        ripe = sorted((x for x in oldest if x.retry_at is not None and x.retry_at <= now), key=lambda x: x.attempts)
        return self._answer(lambda: fresh + ripe[: limit if again is None else again])

    def next_due(self, deliverer, now):
        times = [x.retry_at for x in self._oldest(deliverer) if x.retry_at is not None and x.retry_at > now]
        return self._answer(lambda: min(times, default=None))

    def delivered(self, seqs):
        def deliver() -> list[OutboxEvent]:
            behind = []
            for one in [self.events[seq] for seq in sorted(set(seqs)) if seq in self.events]:
                behind += self._behind(one)
                del self.events[one.seq]
            return [x for x in behind if x.seq in self.events and x.retry_at is None]

        return self._answer(deliver)

    def failed(self, seq, error, retry_at):
        return self._change(seq, lambda x: evolve(x, attempts=x.attempts + 1, error=error, retry_at=retry_at))

    def bury(self, seq, error, at):
        def bury() -> list[OutboxEvent]:
            one = self.events.get(seq)
            if one is None:
                return []
            behind = self._behind(one)
            self.events[seq] = evolve(one, attempts=one.attempts + 1, error=error, retry_at=None, dead_at=at)
            return [x for x in behind if x.retry_at is None]

        return self._answer(bury)

    def dead(self, deliverer, after, limit):
        return self._answer(lambda: [x for x in self._of(deliverer, dead=True) if x.seq > after][:limit])

    def replay(self, deliverer, seqs):
        def replay() -> int:
            chosen = [x for x in self._of(deliverer, dead=True) if seqs is None or x.seq in seqs]
            for event in chosen:
                self.events[event.seq] = OutboxEvent(event.seq, event.deliverer, event.fact)
            return len(chosen)

        return self._answer(replay)

    def depth(self, deliverer):
        waiting = self._of(deliverer, dead=False)
        oldest = min((x.fact.at for x in waiting), default=None)
        return self._answer(lambda: Depth(len(waiting), len(self._of(deliverer, dead=True)), oldest))

    def _behind(self, one: OutboxEvent) -> list[OutboxEvent]:
        """Which may go once that is gone."""
        kin = [x for x in self.events.values() if x.fact.upload_id == one.fact.upload_id and x.dead_at is None]
        ours = sorted((x for x in kin if x.deliverer == one.deliverer), key=lambda x: x.seq)
        return ours[1:2] if one in ours[:1] else []

    def _of(self, deliverer: str, dead: bool) -> list[OutboxEvent]:
        events = sorted(self.events.values(), key=lambda x: x.seq)
        return [x for x in events if x.deliverer == deliverer and (x.dead_at is not None) is dead]

    def _oldest(self, deliverer: str) -> list[OutboxEvent]:
        oldest: dict[str, OutboxEvent] = {}
        for event in self._of(deliverer, dead=False):
            oldest.setdefault(event.fact.upload_id, event)
        return list(oldest.values())

    def _change(self, seq: int, change: Callable[[OutboxEvent], OutboxEvent]) -> Deferred[None]:
        def act() -> None:
            if seq in self.events:
                self.events[seq] = change(self.events[seq])

        return self._answer(act)

    def _answer(self, act: Callable[[], object]) -> Deferred:
        return fail(self.broken) if self.broken else succeed(act())


def fact(upload_id: str, kind: FactKind = FactKind.CREATED, at: float = 0.0, **data: object) -> Fact:
    return Fact(kind, upload_id, at, {"length": 10, "offset": 0, **data})


class OutboxContract:
    """What every outbox promises. Mix it into a TestCase and give `make_outbox` and `post`."""

    def make_outbox(self, deliverers: Sequence[str]) -> IOutbox:
        """An empty outbox for these deliverers."""
        raise NotImplementedError

    def post(self, outbox: IOutbox, *facts: Fact) -> None:
        """Have these facts written, in this order."""
        raise NotImplementedError

    def outcome(self, answer: Deferred) -> object:
        """The result of a Deferred; replace it where it takes a while."""
        results: list[object] = []
        answer.addCallback(results.append)
        return results[0]

    def due(self, outbox, now=0.0, limit=100, deliverer="a"):
        return self.outcome(outbox.due(deliverer, now, limit))

    def test_it_provides_the_interface(self):
        assert verifyObject(IOutbox, self.make_outbox(["a"]))

    def test_each_deliverer_has_events_of_its_own(self):
        outbox = self.make_outbox(["a", "b"])
        self.post(outbox, fact("u", offset=3))
        (mine,), (theirs,) = self.due(outbox), self.due(outbox, deliverer="b")
        assert (mine.deliverer, theirs.deliverer) == ("a", "b")
        assert mine.fact == theirs.fact == fact("u", offset=3)
        self.outcome(outbox.delivered([mine.seq]))
        assert self.due(outbox) == [] and len(self.due(outbox, deliverer="b")) == 1

    def test_of_each_upload_only_the_oldest_is_due(self):
        outbox = self.make_outbox(["a"])
        self.post(outbox, fact("u"), fact("v"), fact("u", FactKind.FINISHED), fact("w"))
        first, *rest = self.due(outbox)
        assert [x.fact.upload_id for x in (first, *rest)] == ["u", "v", "w"]
        assert first.seq < rest[0].seq < rest[1].seq
        assert len(self.due(outbox, limit=2)) == 2
        self.outcome(outbox.delivered([first.seq]))
        assert FactKind.FINISHED in [x.fact.kind for x in self.due(outbox) if x.fact.upload_id == "u"]

    def test_what_was_behind_those_that_arrived_is_told(self):
        outbox = self.make_outbox(["a", "b"])
        self.post(outbox, fact("u"), fact("v"), fact("u", FactKind.FINISHED), fact("w"), fact("w", FactKind.FINISHED))
        self.post(outbox, fact("u", FactKind.STORED))
        u, v, w = self.due(outbox)
        finished, other = self.outcome(outbox.delivered([w.seq, v.seq, u.seq, 99]))
        assert [(x.fact.upload_id, x.fact.kind) for x in (finished, other)] in (
            [("u", FactKind.FINISHED), ("w", FactKind.FINISHED)],
            [("w", FactKind.FINISHED), ("u", FactKind.FINISHED)],
        )
        assert sorted(self.due(outbox), key=lambda x: x.seq) == sorted((finished, other), key=lambda x: x.seq)
        first = min((finished, other), key=lambda x: x.seq)
        (last,) = self.outcome(outbox.delivered([first.seq]))
        assert (last.fact.upload_id, last.fact.kind) == ("u", FactKind.STORED)
        assert self.outcome(outbox.delivered([last.seq])) == []

    def test_what_was_behind_a_dead_one_is_told(self):
        outbox = self.make_outbox(["a"])
        self.post(outbox, fact("u"), fact("u", FactKind.FINISHED), fact("v"))
        first, other = self.due(outbox)
        (behind,) = self.outcome(outbox.bury(first.seq, "no", 5.0))
        assert (behind.fact.upload_id, behind.fact.kind) == ("u", FactKind.FINISHED)
        assert self.outcome(outbox.bury(other.seq, "no", 5.0)) == []

    def test_of_several_of_one_upload_that_arrived_none_is_told(self):
        outbox = self.make_outbox(["a"])
        self.post(outbox, fact("u"), fact("u", FactKind.FINISHED), fact("u", FactKind.STORED))
        (first,) = self.due(outbox)
        (last,) = self.outcome(outbox.delivered([first.seq, first.seq + 1]))
        assert last.fact.kind is FactKind.STORED and self.due(outbox) == [last]

    def test_a_failed_letter_waits_for_its_time_and_holds_up_its_upload_alone(self):
        outbox = self.make_outbox(["a"])
        self.post(outbox, fact("u"), fact("u", FactKind.FINISHED), fact("v"))
        first, other = self.due(outbox)
        self.outcome(outbox.failed(first.seq, "it answered 500", 50.0))
        assert self.due(outbox, now=49.0) == [other]
        assert self.outcome(outbox.next_due("a", 49.0)) == 50.0
        assert self.outcome(outbox.next_due("a", 50.0)) is None
        again = self.due(outbox, now=50.0)[-1]
        assert (again.seq, again.attempts, again.error) == (first.seq, 1, "it answered 500")

    def test_a_dead_letter_is_listed_and_what_is_behind_it_goes(self):
        outbox = self.make_outbox(["a"])
        self.post(outbox, fact("u"), fact("u", FactKind.FINISHED))
        (first,) = self.due(outbox)
        self.outcome(outbox.bury(first.seq, "too old", 99.0))
        assert [x.fact.kind for x in self.due(outbox)] == [FactKind.FINISHED]
        (dead,) = self.outcome(outbox.dead("a", 0, 10))
        assert (dead.seq, dead.attempts, dead.error, dead.dead_at) == (first.seq, 1, "too old", 99.0)
        assert self.outcome(outbox.dead("a", dead.seq, 10)) == []
        depth = self.outcome(outbox.depth("a"))
        assert (depth.waiting, depth.dead) == (1, 1)

    def test_replayed_events_are_as_new_and_come_first(self):
        outbox = self.make_outbox(["a", "b"])
        self.post(outbox, fact("u"), fact("u", FactKind.FINISHED), fact("v"))
        for event in self.due(outbox):
            self.outcome(outbox.bury(event.seq, "too old", 99.0))
        first = self.outcome(outbox.dead("a", 0, 1))[0]
        assert self.outcome(outbox.replay("b", None)) == 0
        assert self.outcome(outbox.replay("a", [first.seq, 12345])) == 1
        assert self.due(outbox)[0] == OutboxEvent(first.seq, "a", first.fact)
        assert self.outcome(outbox.replay("a", None)) == 1
        assert len(self.due(outbox)) == 2

    def test_what_never_failed_is_told_first_and_then_what_failed_least_often(self):
        outbox = self.make_outbox(["a"])
        self.post(outbox, fact("u"), fact("v"), fact("w"), fact("x"), fact("y"))
        u, v, w, x, y = self.due(outbox)
        for event, times in ((u, 3), (v, 1), (x, 2)):
            for _ in range(times):
                self.outcome(outbox.failed(event.seq, "no", 50.0))
        told = [event.seq for event in self.due(outbox, now=50.0)]
        assert told == [w.seq, y.seq, v.seq, x.seq, u.seq]
        for limit, again, seqs in ((1, 2, [w, v, x]), (0, 1, [v]), (5, 0, [w, y])):
            due = self.outcome(outbox.due("a", 50.0, limit, again))
            assert [event.seq for event in due] == [event.seq for event in seqs]

    def test_new_ones_are_told_from_a_number_on(self):
        outbox = self.make_outbox(["a"])
        self.post(outbox, fact("u"), fact("v"), fact("w"), fact("x"))
        u, v, w, x = self.due(outbox)
        self.outcome(outbox.failed(u.seq, "no", 50.0))
        for after, seqs in ((0, [v, w, u]), (u.seq, [v, w, u]), (v.seq, [w, x, u]), (w.seq, [x, u]), (x.seq, [u])):
            due = self.outcome(outbox.due("a", 50.0, 2, 9, after))
            assert [event.seq for event in due] == [event.seq for event in seqs]

    def test_unknown_numbers_are_passed_over(self):
        outbox = self.make_outbox(["a"])
        for change in (outbox.delivered([7]), outbox.failed(7, "x", 1.0), outbox.bury(7, "x", 1.0)):
            self.outcome(change)
        assert self.due(outbox) == []

    def test_depth_tells_since_when_the_oldest_waits(self):
        outbox = self.make_outbox(["a"])
        assert self.outcome(outbox.depth("a")) == Depth()
        self.post(outbox, fact("u", at=5.0), fact("v", at=6.0))
        assert self.outcome(outbox.depth("a")) == Depth(2, 0, 5.0)
