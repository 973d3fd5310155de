"""Whatever happens to events, in whatever batches and with commits that fail, the outbox is the one in memory."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable.model.errors import CatalogUnavailable
from tests.catalog.contract import upload
from tests.catalog.doubles import Shelf
from tests.catalog.faults import Faults, outcome
from tests.hooks.outbox import MemoryOutbox, fact

DELIVERERS = ("a", "b")
UPLOADS = st.lists(st.sampled_from("uvw"), min_size=1, max_size=4)
DELIVERER = st.sampled_from(DELIVERERS)
SEQ = st.integers(1, 12)
SEQS = st.lists(SEQ, max_size=4)
TIMES = st.integers(1, 9).map(float)

STEPS = st.one_of(
    st.tuples(st.just("post"), UPLOADS),
    st.tuples(st.just("post"), UPLOADS),
    st.tuples(st.just("delivered"), SEQS),
    st.tuples(st.just("failed"), SEQ, TIMES),
    st.tuples(st.just("bury"), SEQ, TIMES),
    st.tuples(st.just("replay"), DELIVERER, SEQS),
    st.tuples(st.sampled_from(["flush", "lose the commit", "lose the answer", "restart", "replay all"])),
)


class Model(MemoryOutbox):
    """Facts get the time of the step; the dead are left alone by attempts, and can be set back."""

    at = 0.0

    def lives(self, seq: int) -> bool:
        return seq in self.events and self.events[seq].dead_at is None

    def step(self, verb: str, *values: Any) -> Any:
        match verb:
            case "post":
                self.at += 1
                self.post(*(fact(one, at=self.at) for one in values[0]))
                return True
            case "failed" | "bury":
                seq, at = values
                if not self.lives(seq):
                    return [] if verb == "bury" else None
                return getattr(self, verb)(seq, f"{verb} {at}", at).result
        return getattr(self, verb)(*values).result

    def state(self) -> Any:
        return dict(self.events), self._seq

    def set_back(self, state: Any) -> None:
        self.events, self._seq = dict(state[0]), state[1]


def ask(catalog: Any, number: int, verb: str, *values: Any) -> Any:
    match verb:
        case "post":
            return catalog.create(upload(number), [fact(one, at=float(number)) for one in values[0]])
        case "failed" | "bury":
            seq, at = values
            return getattr(catalog.outbox, verb)(seq, f"{verb} {at}", at)
    return getattr(catalog.outbox, verb)(*values)


def views(outbox: Any) -> list[Any]:
    return [
        answer
        for one in DELIVERERS
        for answer in (
            *(outbox.due(one, now, limit) for now in (0.0, 5.0, 10.0) for limit in (1, 100)),
            *(outbox.next_due(one, now) for now in (0.0, 5.0)),
            *(outbox.dead(one, after, 3) for after in (0, 3)),
            outbox.depth(one),
        )
    ]


@pytest.mark.slow
@settings(max_examples=100)
@given(steps=st.lists(STEPS, max_size=40))
def test_the_events_are_the_model(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        shelf, faults, model, posted = Shelf(directory), Faults(), Model(DELIVERERS), 0
        catalog = shelf.running(connector=faults.connect, deliverers=DELIVERERS)
        waiting: list[tuple[tuple[Any, ...], Any]] = []
        for step in [*steps, ("flush",)]:
            if step[0] not in ("flush", "lose the commit", "lose the answer", "restart", "replay all"):
                posted += step[0] == "post"
                waiting.append((step, ask(catalog, posted, *step)))
                continue
            if step[0] == "lose the commit":
                faults.fail("COMMIT")
            elif step[0] == "lose the answer":
                faults.fail_after("COMMIT")
            before = model.state()
            shelf.flush()
            answers = [outcome(answer) for _, answer in waiting]
            wanted = [model.step(*one) for one, _ in waiting]
            if any(isinstance(answer, CatalogUnavailable) for answer in answers):
                assert step[0] == "lose the commit"
                model.set_back(before)
            else:
                assert answers == wanted
            waiting, faults.rules = [], []
            if step[0] == "restart":
                assert catalog.stop().called
                catalog = shelf.running(connector=faults.connect, deliverers=DELIVERERS)
            elif step[0] == "replay all":  # in its own time: it looks first, then it changes
                count = catalog.outbox.replay("a", None)
                shelf.flush()
                assert outcome(count) == model.step("replay", "a", None)
            found = views(catalog.outbox)
            shelf.flush()
            assert [answer.result for answer in found] == [answer.result for answer in views(model)]
        assert catalog.stop().called
