"""Whatever is asked of it, in batches of any size and with commits that fail, the catalog is the plain model."""

from __future__ import annotations

import tempfile
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Commit, GoneReason, Upload
from tests.catalog.contract import name, upload
from tests.catalog.doubles import Shelf
from tests.catalog.faults import Faults, outcome

LENGTH = 4
NUMBERS = st.integers(0, 2)
SMALL = st.integers(0, LENGTH)
EPOCHS = st.integers(0, 2)
TIMES = st.integers(0, 9).map(float)

STEPS = st.one_of(
    st.tuples(st.just("create"), NUMBERS),
    st.tuples(st.just("begin"), NUMBERS, EPOCHS, SMALL, SMALL, TIMES),
    st.tuples(st.just("commit"), NUMBERS, EPOCHS, SMALL, SMALL, TIMES, st.booleans()),
    st.tuples(st.just("end"), NUMBERS, TIMES),
    st.tuples(st.just("get"), NUMBERS),
    st.tuples(st.sampled_from(["flush", "lose the commit", "lose the answer"])),
)


class Model:
    """The catalog's promises over a dict."""

    def __init__(self) -> None:
        self.rows: dict[str, Upload] = {}

    def create(self, number: int) -> bool:
        return self.rows.setdefault(name(number), (new := upload(number, touched_at=5.0, length=LENGTH))) is new

    def get(self, number: int) -> Upload | None:
        return self.rows.get(name(number))

    def _open(self, number: int, epoch: int, start: int) -> Upload | None:
        row = self.get(number)
        if row is None or row.gone or row.finished or (row.epoch, row.offset) != (epoch, start):
            return None
        return row

    def begin(self, number: int, epoch: int, start: int, adoptable: int, at: float) -> bool:
        if (row := self._open(number, epoch, start)) is None:
            return False
        at, adoptable = max(row.touched_at, at), max(adoptable, start)
        self.rows[row.id] = evolve(row, epoch=epoch + 1, boot_id="boot", adoptable=adoptable, touched_at=at)
        return True

    def commit(self, number: int, epoch: int, start: int, more: int, at: float, finished: bool) -> bool | None:
        if (row := self._open(number, epoch, start)) is None:
            return False
        offset, at = start + more, max(row.touched_at, at)
        if offset > LENGTH or (finished and offset != LENGTH):
            return None
        ends = at if finished else None
        adoptable = max(row.adoptable, offset)
        self.rows[row.id] = evolve(row, offset=offset, adoptable=adoptable, touched_at=at, finished_at=ends)
        return True

    def end(self, number: int, at: float) -> bool:
        row = self.get(number)
        if row is None or row.gone:
            return False
        self.rows[row.id] = evolve(row, gone=GoneReason.TERMINATED, gone_at=max(row.touched_at, at))
        return True


def ask(catalog: Any, verb: str, *values: Any) -> Deferred[Any]:
    number, *rest = values
    match verb:
        case "create":
            return catalog.create(upload(number, touched_at=5.0, length=LENGTH), ())
        case "begin":
            epoch, start, adoptable, at = rest
            return catalog.begin(name(number), epoch, start, "boot", adoptable, at)
        case "commit":
            epoch, start, more, at, finished = rest
            return catalog.commit(Commit(name(number), epoch, start, start + more, at, finished=finished))
        case "end":
            return catalog.end(name(number), GoneReason.TERMINATED, rest[0], ())
    return catalog.get(name(number))


@settings(max_examples=40)
@given(steps=st.lists(STEPS, max_size=40))
def test_the_catalog_is_the_model(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        shelf, faults, model = Shelf(directory), Faults(), Model()
        catalog = shelf.running(connector=faults.connect)
        waiting: list[tuple[tuple[Any, ...], Deferred[Any]]] = []
        for step in [*steps, ("flush",)]:
            if step[0] in ("create", "begin", "commit", "end", "get"):
                waiting.append((step, ask(catalog, *step)))
                continue
            if step[0] == "lose the commit":
                faults.fail("COMMIT")
            elif step[0] == "lose the answer":
                faults.fail_after("COMMIT")
            before = dict(model.rows)
            shelf.flush()
            answers = [outcome(answer) for _, answer in waiting]
            wanted = [getattr(model, verb)(*values) for (verb, *values), _ in waiting]
            if any(isinstance(answer, CatalogUnavailable) for answer in answers):
                assert step[0] == "lose the commit"
                model.rows = before
                for ((verb, *values), _), answer in zip(waiting, answers, strict=True):
                    # a record that was just made is answered without the disk
                    known = verb == "get" and answer == model.get(*values)
                    assert known or isinstance(answer, CatalogUnavailable)
            else:
                assert [None if isinstance(answer, ValueError) else answer for answer in answers] == wanted
            waiting, faults.rules = [], []
        found = catalog.get_many([name(number) for number in range(3)])
        assert catalog.stop().called
        assert found.result == model.rows
