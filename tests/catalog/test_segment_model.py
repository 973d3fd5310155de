"""Whatever two workers ask for, in batches of any size, an upload's segments are the plain model's: they follow each
other from 0 to the committed offset, or the upload is whole; and each name that a row loses is discarded once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from attrs import define, evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from resumable.model.segments import Layout
from resumable.model.upload import WHOLE, Commit, GoneReason, Segment, Upload
from tests.catalog.contract import upload
from tests.catalog.faults import outcome
from tests.catalog.on_postgres import WORKERS, CatalogOfWorker, shared
from tests.postgres import emptied

pytestmark = pytest.mark.process

LENGTH = 20
AT = 150.0
UPLOADS = st.integers(0, 1)
WORKER = st.integers(0, 1)
STALE = st.sampled_from([0, 0, 0, 0, 1])
COMMIT = st.tuples(st.just("commit"), WORKER, UPLOADS, st.integers(1, 3), st.booleans(), STALE)
JOIN = st.tuples(st.just("join"), WORKER, UPLOADS, st.integers(0, 2), st.integers(1, 3), STALE)
FLUSH = st.tuples(st.just("flush"), WORKER)
FEW = st.one_of(
    st.tuples(st.just("finish"), WORKER, UPLOADS, st.booleans()),
    st.tuples(st.just("begin"), WORKER, UPLOADS),
    st.tuples(st.just("make_whole"), WORKER, UPLOADS),
    st.tuples(st.sampled_from(["begin", "begin", "end"]), WORKER, UPLOADS),
)
STEPS = st.one_of(COMMIT, COMMIT, JOIN, JOIN, FLUSH, FLUSH, FEW)
#: How many segments an upload has at the beginning.
SEGMENTS = st.lists(st.integers(0, 5), min_size=2, max_size=2)

_uploads = itertools.count(1_000_000)
_names = itertools.count(1)


def file_name() -> str:
    return f"0c/model-{next(_names)}"


@define
class Row:
    """What the catalog has of one upload."""

    record: Upload
    segments: list[Segment]
    discarded: list[str]
    whole: bool = False

    @property
    def is_open(self) -> bool:
        return self.record.gone is None and not self.record.finished

    def begin(self, epoch: int, start: int) -> bool:
        if not self.is_open or (self.record.epoch, self.record.offset) != (epoch, start):
            return False
        self.record = evolve(self.record, epoch=epoch + 1, boot_id="boot", touched_at=AT)
        return True

    def commit(self, change: Commit) -> bool:
        record = self.record
        if not self.is_open or (record.epoch, record.offset) != (change.epoch, change.start):
            return False
        if (segment := change.segment) is not None and segment.name == WHOLE:
            self.whole = True
        elif segment is not None:
            at = [one.name for one in self.segments].index(segment.name) if segment.known else len(self.segments)
            if segment.known and self.segments[at].size != segment.known:
                return False
            self.segments[at:] = [evolve(segment, known=segment.size)]
        ends = AT if change.finished else None
        self.record = evolve(record, offset=change.offset, adoptable=change.offset, touched_at=AT, finished_at=ends)
        return True

    def join(self, replaced: Sequence[Segment], joined: Segment) -> bool:
        if self.record.gone is not None or self.whole or not (found := self.segments[:-1]):
            return False
        if replaced[0] not in found:
            return False
        at = found.index(replaced[0])
        if found[at : at + len(replaced)] != list(replaced):
            return False
        self.segments[at : at + len(replaced)] = [evolve(joined, known=joined.size)]
        self.discarded += [segment.name for segment in replaced]
        return True

    def make_whole(self) -> bool:
        if self.record.gone is not None or not self.record.finished or self.whole:
            return False
        self.discarded += [segment.name for segment in self.segments]
        self.segments, self.whole = [], True
        return True

    def end(self) -> bool:
        if self.record.gone is not None:
            return False
        self.record = evolve(self.record, gone=GoneReason.TERMINATED, gone_at=max(AT, 200.0))
        return True


def asked(catalog: Any, row: Row, step: tuple[Any, ...]) -> tuple[Deferred[Any], tuple[Any, ...]] | None:
    """What a worker asks for that knows the row, and what to ask of the model; None: it has nothing to ask."""
    record, segments = row.record, row.segments
    match step:
        case ("commit", _, _, more, goes_on, stale):
            end = min(record.offset + more, LENGTH)
            if end == record.offset:
                return None
            segment = Segment(record.offset, end - record.offset, file_name())
            if goes_on and segments:
                last = segments[-1]
                segment = Segment(last.start, end - last.start, last.name, last.size)
            change = Commit(record.id, record.epoch - stale, record.offset, end, AT, segment=segment)
            return catalog.commit(change), ("commit", change)
        case ("finish", _, _, whole):
            segment = None if record.offset == LENGTH else Segment(record.offset, LENGTH - record.offset, file_name())
            if whole and record.offset == 0:
                segment = Segment(0, LENGTH, WHOLE)
            change = Commit(record.id, record.epoch, record.offset, LENGTH, AT, finished=True, segment=segment)
            return catalog.commit(change), ("commit", change)
        case ("begin", _, _):
            begun = catalog.begin(record.id, record.epoch, record.offset, "boot", 0, AT)
            return begun, ("begin", record.epoch, record.offset)
        case ("join", _, _, first, count, stale):
            replaced = segments[first : first + count]
            if not replaced:
                return None
            if stale:
                replaced = [*replaced[:-1], evolve(replaced[-1], size=replaced[-1].size + 1, known=0)]
            joined = Segment(replaced[0].start, sum(segment.size for segment in replaced), file_name())
            return catalog.segments.joined(record.id, replaced, joined), ("join", replaced, joined)
        case ("make_whole", _, _):
            return catalog.segments.made_whole(record.id), ("make_whole",)
        case ("end", _, _):
            return catalog.end(record.id, GoneReason.TERMINATED, 200.0, ()), ("end",)
    raise AssertionError(step)


def in_order(layout: Layout) -> bool:
    """Whether its bytes are all there, once each."""
    ends = [segment.start + segment.size for segment in layout.segments]
    return layout.whole or [0, *ends] == [*(segment.start for segment in layout.segments), layout.offset]


@pytest.fixture(scope="module")
def workers() -> Iterator[list[CatalogOfWorker]]:
    emptied(shared(), keep=("installation",))
    with psycopg.connect(shared(), autocommit=True) as connection:
        for worker_id in WORKERS:
            connection.execute("INSERT INTO workers (id, node, pid) VALUES (%s, 'here', 1)", (worker_id,))
    found = [CatalogOfWorker(shared(), worker_id) for worker_id in WORKERS]
    yield found
    for worker in found:
        worker.catalog.stop()


def begun(worker: CatalogOfWorker, count: int) -> Row:
    """A new upload of so many segments."""
    row = Row(upload(next(_uploads), length=LENGTH), [], [])
    assert worker.ask(worker.catalog.create(row.record, ())) is True
    for start in range(count):
        change = Commit(row.record.id, 0, start, start + 1, AT, segment=Segment(start, 1, file_name()))
        assert worker.ask(worker.catalog.commit(change)) is row.commit(change) is True
    return row


@settings(max_examples=60)
@given(counts=SEGMENTS, steps=st.lists(STEPS, min_size=5, max_size=40))
def test_segments_are_the_models(
    workers: list[CatalogOfWorker], counts: list[int], steps: list[tuple[Any, ...]]
) -> None:
    rows = [begun(workers[0], count) for count in counts]
    waiting: list[list[tuple[Row, Deferred[Any], tuple[Any, ...]]]] = [[], []]
    for step in [*steps, ("flush", 0), ("flush", 1)]:
        worker = workers[step[1]]
        if step[0] != "flush":
            row = rows[step[2]]
            if (found := asked(worker.catalog, row, step)) is not None:
                waiting[step[1]].append((row, *found))
            continue
        worker.flush()
        for row, answer, (verb, *values) in waiting[step[1]]:
            assert outcome(answer) == getattr(row, verb)(*values), (verb, values, row)
        waiting[step[1]] = []
        layouts = worker.ask(worker.catalog.segments.of_many([row.record.id for row in rows]))
        for row in rows:
            layout = layouts[row.record.id]
            assert layout == Layout(row.record.id, row.record.offset, row.whole, tuple(row.segments))
            assert in_order(layout)
    for row in rows:
        assert workers[1].ask(workers[1].catalog.get(row.record.id)) == row.record
    names = [each for row in rows for each in row.discarded]
    with psycopg.connect(shared()) as connection:
        found = connection.execute("SELECT name FROM discarded WHERE name = ANY(%s)", (names,)).fetchall()
        assert sorted(each for (each,) in found) == sorted(names)
        (count,) = connection.execute("SELECT count(*) FROM discarded").fetchone() or (None,)
    assert workers[0].ask(workers[0].catalog.segments.removed(names)) is None
    assert count == len(names)
