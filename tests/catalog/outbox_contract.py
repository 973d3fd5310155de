"""What else IOutbox promises, beyond what any outbox is put through: what needs a catalog that can be stopped."""

from __future__ import annotations

from attrs import evolve

from resumable.model.errors import CatalogUnavailable
from resumable.model.outbox import Depth, IOutbox, OutboxEvent
from resumable.model.upload import Fact, FactKind
from tests.catalog.contract import CatalogSuite, name, upload
from tests.hooks.outbox import OutboxContract, fact


class DurableOutboxContract(CatalogSuite, OutboxContract):
    """`make_catalog` comes from the class that this is mixed into; facts are those of creations."""

    made = 0

    def make_outbox(self, deliverers):
        self.catalog = self.make_catalog(deliverers)
        return self.catalog.outbox

    def post(self, outbox: IOutbox, *facts: Fact) -> None:
        self.made += 1
        assert self.ask(self.catalog.create(upload(self.made), facts)) is True

    def outcome(self, answer):
        return self.ask(answer)

    def events(self, *uploads: str) -> list[OutboxEvent]:
        """New events of these uploads, oldest first."""
        self.outbox = self.make_outbox(["a"])
        self.post(self.outbox, *(fact(one, at=float(at)) for at, one in enumerate(uploads)))
        return [OutboxEvent(seq, "a", fact(one, at=seq - 1.0)) for seq, one in enumerate(uploads, 1)]

    def seqs(self, now=0.0, limit=100):
        return [event.seq for event in self.due(self.outbox, now, limit)]

    # due, next_due

    def test_what_is_new_is_due_before_what_failed(self):
        self.events("u", "v", "w", "x")
        self.ask(self.outbox.failed(2, "no", 50.0))
        self.ask(self.outbox.failed(3, "no", 40.0))
        assert self.seqs(now=45.0) == [1, 4, 3]
        assert self.seqs(now=50.0) == [1, 4, 2, 3]
        assert self.seqs(now=50.0, limit=1) == [1, 2]

    def test_events_are_read_back_as_they_are(self):
        first, second, third = self.events("u", "u", "v")
        assert self.due(self.outbox) == [first, third]
        self.ask(self.outbox.failed(1, "na\u00efve \u2603", 50.0))
        self.ask(self.outbox.failed(1, "again", 60.5))
        again = evolve(first, attempts=2, error="again", retry_at=60.5)
        assert self.due(self.outbox, now=60.5) == [third, again]
        self.ask(self.outbox.bury(1, "too old", 70.0))
        assert self.due(self.outbox) == [second, third]
        dead = evolve(first, attempts=3, error="too old", dead_at=70.0)
        assert list(self.ask(self.outbox.dead("a", 0, 10))) == [dead]

    def test_the_next_time_is_that_of_the_oldest_of_an_upload(self):
        self.events("u", "u", "v", "w")
        assert self.ask(self.outbox.next_due("a", 0.0)) is None
        self.ask(self.outbox.failed(2, "behind the first", 5.0))
        self.ask(self.outbox.failed(3, "no", 30.0))
        self.ask(self.outbox.failed(4, "no", 20.0))
        assert [self.ask(self.outbox.next_due("a", now)) for now in (0.0, 20.0, 30.0)] == [20.0, 30.0, None]
        self.ask(self.outbox.bury(4, "no", 25.0))
        assert self.ask(self.outbox.next_due("a", 0.0)) == 30.0
        self.ask(self.outbox.delivered([1]))
        assert self.ask(self.outbox.next_due("a", 0.0)) == 5.0
        assert self.ask(self.outbox.next_due("b", 0.0)) is None

    # delivered, failed, bury

    def test_several_of_one_upload_arrive_in_any_order(self):
        for arrived in ([1, 2], [2, 1], [2, 1, 1, 99]):
            self.events("u", "u", "u")
            self.ask(self.outbox.delivered(arrived))
            assert self.seqs() == [3]

    def test_what_arrives_before_its_turn_changes_no_turn(self):
        self.events("u", "u", "u")
        self.ask(self.outbox.delivered([2]))
        assert self.seqs() == [1]
        self.ask(self.outbox.delivered([1]))
        assert self.seqs() == [3]

    def test_a_new_event_waits_behind_those_of_its_upload_but_not_behind_dead_ones(self):
        self.events("u")
        self.ask(self.outbox.failed(1, "no", 50.0))
        self.post(self.outbox, fact("u", FactKind.FINISHED))
        assert self.seqs() == []
        self.ask(self.outbox.bury(1, "no", 60.0))
        assert self.seqs() == [2]
        self.ask(self.outbox.delivered([2]))
        self.post(self.outbox, fact("u", FactKind.TERMINATED))
        assert self.seqs() == [3]

    def test_an_attempt_of_a_dead_one_is_passed_over(self):
        self.events("u")
        self.ask(self.outbox.bury(1, "no", 60.0))
        self.ask(self.outbox.failed(1, "late", 70.0))
        self.ask(self.outbox.bury(1, "late", 80.0))
        (dead,) = self.ask(self.outbox.dead("a", 0, 10))
        assert (dead.attempts, dead.error, dead.retry_at, dead.dead_at) == (1, "no", None, 60.0)
        assert self.seqs(now=1e9) == []

    # dead, replay

    def test_dead_ones_are_listed_in_pages(self):
        self.events(*"uvwxy")
        for seq in (4, 1, 5, 2):
            self.ask(self.outbox.bury(seq, "no", 60.0 - seq))
        assert [event.seq for event in self.ask(self.outbox.dead("a", 0, 3))] == [1, 2, 4]
        assert [event.seq for event in self.ask(self.outbox.dead("a", 4, 3))] == [5]
        assert list(self.ask(self.outbox.dead("b", 0, 3))) == []

    def test_a_replayed_event_holds_up_what_is_newer(self):
        self.events("u", "u", "u")
        self.ask(self.outbox.bury(1, "no", 60.0))
        self.ask(self.outbox.failed(2, "no", 70.0))
        assert self.ask(self.outbox.replay("a", [1])) == 1
        assert self.seqs() == [1]
        assert self.ask(self.outbox.next_due("a", 0.0)) is None, "the second waits for the first"
        self.ask(self.outbox.delivered([1]))
        assert (self.seqs(now=69.0), self.seqs(now=70.0)) == ([], [2])

    def test_several_of_one_upload_are_replayed_in_their_order(self):
        for seqs in ([1, 3], [3, 1], [3, 3, 1, 1, 0, -1, 1 << 70], None):
            self.events("u", "u", "u", "u")
            for seq in (1, 2, 3):
                self.ask(self.outbox.bury(seq, "no", 60.0))
            if seqs is None:
                self.ask(self.outbox.delivered([2]))
            assert self.ask(self.outbox.replay("a", seqs)) == 2
            told = [event.seq for _ in range(3) for event in self.arrive()]
            assert told == [1, 3, 4]

    def arrive(self):
        events = self.due(self.outbox)
        self.ask(self.outbox.delivered([event.seq for event in events]))
        return events

    def test_an_event_that_waits_is_not_replayed(self):
        self.events("u")
        self.ask(self.outbox.failed(1, "no", 70.0))
        assert self.ask(self.outbox.replay("a", [1])) == self.ask(self.outbox.replay("a", None)) == 0
        assert self.seqs() == []

    # depth

    def test_depth_counts_the_waiting_and_the_dead(self):
        self.events("u", "u", "v", "w", "x")
        self.ask(self.outbox.bury(1, "no", 60.0))
        self.ask(self.outbox.bury(3, "no", 60.0))
        self.ask(self.outbox.failed(2, "no", 70.0))
        assert self.ask(self.outbox.depth("a")) == Depth(3, 2, 1.0)
        self.ask(self.outbox.delivered([2, 4, 5]))
        assert self.ask(self.outbox.depth("a")) == Depth(0, 2, None)
        assert self.ask(self.outbox.depth("b")) == Depth()

    # all

    def test_without_a_running_catalog_everything_fails(self):
        self.events("u")
        self.ask(self.catalog.stop())
        for answer in (
            self.outbox.due("a", 0.0, 10),
            self.outbox.next_due("a", 0.0),
            self.outbox.delivered([1]),
            self.outbox.failed(1, "no", 1.0),
            self.outbox.bury(1, "no", 1.0),
            self.outbox.dead("a", 0, 10),
            self.outbox.replay("a", None),
            self.outbox.replay("a", [1]),
            self.outbox.depth("a"),
        ):
            self.refusal(answer, CatalogUnavailable)

    def test_each_kind_of_change_writes_its_events_or_none(self):
        self.outbox = self.make_outbox(["a", "b"])
        self.post(self.outbox, fact(name(1)))
        assert self.ask(self.catalog.create(upload(1), [fact(name(1))])) is False
        assert [len(self.due(self.outbox, deliverer=one)) for one in "ab"] == [1, 1]
