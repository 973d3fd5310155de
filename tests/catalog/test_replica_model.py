"""Whatever happens to replicas, in whatever batches, what is stored, droppable and due is what the words say."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Commit, GoneReason, Replica, ReplicaState, Upload
from tests.catalog.contract import name, upload
from tests.catalog.doubles import Shelf
from tests.catalog.faults import Faults, outcome

LENGTH = 4
REMOTES = {"a": True, "b": True, "c": False}
NUMBERS = st.integers(0, 2)
REMOTE = st.sampled_from(sorted(REMOTES))
TIMES = st.integers(1, 9).map(float)
OPEN, STORED, PARKED, ENDING = ReplicaState

STEPS = st.one_of(
    st.tuples(st.just("create"), NUMBERS, st.sets(REMOTE)),
    st.tuples(st.just("finish"), NUMBERS),
    st.tuples(st.just("advance"), NUMBERS, REMOTE, st.sampled_from(ReplicaState), st.integers(0, LENGTH), TIMES),
    st.tuples(st.just("store"), NUMBERS, REMOTE, TIMES),
    st.tuples(st.just("store"), NUMBERS, REMOTE, TIMES),
    st.tuples(st.just("park"), NUMBERS, REMOTE),
    st.tuples(st.just("restart"), NUMBERS, st.none() | REMOTE),
    st.tuples(st.just("drop"), NUMBERS),
    st.tuples(st.just("end"), NUMBERS, st.booleans()),
    st.tuples(st.just("ended"), NUMBERS, REMOTE),
    st.tuples(st.sampled_from(["flush", "lose the commit", "lose the answer"])),
)


class Model:
    """The promises over two dicts."""

    def __init__(self) -> None:
        self.uploads: dict[str, Upload] = {}
        self.rows: dict[tuple[str, str], Replica] = {}

    def of(self, number: int) -> list[Replica]:
        return [row for row in self.rows.values() if row.upload_id == name(number)]

    def at(self, number: int, remote: str, state: ReplicaState) -> Replica | None:
        row = self.rows.get((name(number), remote))
        return row if row is not None and row.state is state else None

    def put(self, row: Replica, **values: Any) -> None:
        self.rows[row.upload_id, row.remote] = evolve(row, **values)

    def create(self, number: int, remotes: set[str]) -> bool:
        if name(number) in self.uploads:
            return False
        self.uploads[name(number)] = upload(number, length=LENGTH, required=sum(REMOTES[one] for one in remotes))
        for remote in sorted(remotes):
            self.put(Replica(name(number), remote, REMOTES[remote]))
        return True

    def finish(self, number: int) -> bool:
        record = self.uploads.get(name(number))
        if record is None or record.gone or record.finished:
            return False
        self.uploads[record.id] = evolve(record, offset=LENGTH, adoptable=LENGTH, finished_at=100.0)
        return True

    def advance(self, number: int, remote: str, state: ReplicaState, confirmed: int, retry_at: float) -> bool:
        if row := self.at(number, remote, state):
            self.put(row, confirmed=confirmed, retry_at=retry_at, attempts=1, error="e", failing_since=1.0)
        return row is not None

    def store(self, number: int, remote: str, at: float) -> tuple[bool, bool]:
        if (row := self.at(number, remote, OPEN)) is None:
            return False, False
        record = self.uploads[name(number)]
        fresh: dict[str, Any] = {"attempts": 0, "error": None, "retry_at": None, "failing_since": None}
        self.put(row, state=STORED, stored={"n": 1}, stored_at=at, confirmed=record.offset, **fresh)
        required = [one.state is STORED for one in self.of(number) if one.required]
        if required and all(required) and record.stored_at is None:
            self.uploads[record.id] = record = evolve(record, stored_at=at)
        return True, record.stored_at is not None

    def park(self, number: int, remote: str) -> bool:
        if row := self.at(number, remote, OPEN):
            self.put(row, state=PARKED, error="no", retry_at=None)
        return row is not None

    def restart(self, number: int, remote: str | None) -> int:
        record = self.uploads.get(name(number))
        if record is None or record.gone or record.dropped_at:
            return 0
        chosen = [row for row in self.of(number) if row.state is PARKED and remote in (None, row.remote)]
        for row in chosen:
            self.put(row, state=OPEN, attempts=0, error=None, failing_since=None)
        return len(chosen)

    def settled(self, number: int) -> float | None:
        record, rows = self.uploads.get(name(number)), self.of(number)
        if record is None or not record.finished or record.gone or record.dropped_at:
            return None
        right = all(row.state is STORED or (row.state is PARKED and not row.required) for row in rows)
        promised = right and any(row.required for row in rows)
        return max((row.stored_at for row in rows if row.stored_at), default=None) if promised else None

    def drop(self, number: int) -> list[str]:
        if self.settled(number) is None:
            return []
        self.uploads[name(number)] = evolve(self.uploads[name(number)], dropped_at=50.0)
        return [name(number)]

    def end(self, number: int, delete: bool) -> bool:
        record = self.uploads.get(name(number))
        if record is None or record.gone:
            return False
        self.uploads[record.id] = evolve(record, gone=GoneReason.TERMINATED, gone_at=200.0)
        for row in self.of(number):
            if delete or row.state is not STORED:
                none: dict[str, Any] = {"error": None, "retry_at": None, "failing_since": None}
                self.put(row, state=ENDING, delete=delete, attempts=0, **none)
        return True

    def ended(self, number: int, remote: str) -> None:
        if self.at(number, remote, ENDING):
            del self.rows[name(number), remote]

    def due(self, remote: str, now: float) -> set[str]:
        def is_due(row: Replica) -> bool:
            record = self.uploads[row.upload_id]
            if row.state not in (OPEN, ENDING) or (row.retry_at or 0) > now:
                return False
            return row.state is ENDING or record.finished or record.offset > row.confirmed

        return {row.upload_id for row in self.rows.values() if row.remote == remote and is_due(row)}


def ask(catalog: Any, verb: str, *values: Any) -> Any:
    number, *rest = values
    replicas, one = catalog.replicas, name(number)
    match verb:
        case "create":
            made = [Replica(one, remote, REMOTES[remote]) for remote in sorted(rest[0])]
            return catalog.create(upload(number, length=LENGTH), (), made)
        case "finish":
            return catalog.commit(Commit(one, 0, 0, LENGTH, 100.0, finished=True))
        case "advance":
            remote, state, confirmed, retry_at = rest
            work = {"confirmed": confirmed, "retry_at": retry_at, "attempts": 1, "error": "e", "failing_since": 1.0}
            return replicas.advance(Replica(one, remote, state=state, **work))
        case "store":
            return replicas.store(Replica(one, rest[0]), {"n": 1}, rest[1])
        case "park":
            return replicas.park(Replica(one, rest[0]), "no", 5.0)
        case "restart":
            return replicas.restart(one, rest[0])
        case "drop":
            return replicas.drop([one], 50.0)
        case "ended":
            return replicas.ended(Replica(one, rest[0], state=ENDING))
    return catalog.end(one, GoneReason.TERMINATED, 200.0, (), rest[0])


def compare(shelf: Shelf, catalog: Any, model: Model) -> None:
    replicas = catalog.replicas
    found = [replicas.of(name(number)) for number in range(3)]
    uploads = catalog.get_many([name(number) for number in range(3)])
    dues = {(remote, now): replicas.due(remote, now, 0, 10) for remote in REMOTES for now in (0.0, 5.0)}
    droppable = {before: replicas.droppable(before, 10) for before in (5.0, 100.0)}
    shelf.flush()
    assert [[evolve(row, seq=0) for row in answer.result] for answer in found] == [model.of(one) for one in range(3)]
    assert uploads.result == model.uploads
    for (remote, now), answer in dues.items():
        assert {row.upload_id for row, _ in answer.result.due} == model.due(remote, now)
    for before, answer in droppable.items():
        settled = {name(number): model.settled(number) for number in range(3)}
        assert {one.id for one in answer.result} == {one for one, at in settled.items() if at and at < before}


def finished_first(steps: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """A remote finalises a replica only once its upload is finished."""
    for step in steps:
        if step[0] == "store":
            yield "finish", step[1]
        yield step


@settings(max_examples=60)
@example([("create", 0, {"a"}), ("store", 0, "a", 1.0), ("finish", 0)])
@given(steps=st.lists(STEPS, max_size=40))
def test_the_replicas_are_the_model(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        shelf, faults, model = Shelf(directory), Faults(), Model()
        catalog = shelf.running(connector=faults.connect)
        waiting: list[tuple[tuple[Any, ...], Any]] = []
        for step in [*finished_first(steps), ("flush",)]:
            if step[0] not in ("flush", "lose the commit", "lose the answer"):
                waiting.append((step, ask(catalog, *step)))
                continue
            if step[0] == "lose the commit":
                faults.fail("COMMIT")
            elif step[0] == "lose the answer":
                faults.fail_after("COMMIT")
            before = dict(model.uploads), dict(model.rows)
            shelf.flush()
            answers = [outcome(answer) for _, answer in waiting]
            wanted = [getattr(model, verb)(*values) for (verb, *values), _ in waiting]
            if any(isinstance(answer, CatalogUnavailable) for answer in answers):
                assert step[0] == "lose the commit"
                model.uploads, model.rows = before
            else:
                assert answers == wanted
            waiting, faults.rules = [], []
            compare(shelf, catalog, model)
        assert catalog.stop().called
