"""Engines over one catalog and one object store, each stopped between any two steps for as long as it likes, while
requests to the store fail, are not heard of, or land at any later time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from resumable.model.upload import Upload
from resumable.protocol import tus
from resumable.protocol.errors import TusError
from resumable.testing.memory_catalog import Fate
from resumable.uploads.limits import UploadLimits
from tests.uploads.cluster_rig import Engine
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import Answer, pattern
from tests.uploads.object_cluster import KIB, LIMITS, PART, SMALL, ObjectCluster, Shape, small_sizes
from tests.waiting import long

#: What a client may be told: another offset, another request, the upload is gone, the store or catalog doesn't answer.
REFUSALS = {409, 410, 423, 503}
SHAPES = {
    "s3": Shape(),
    "equal": Shape(equal=True),
    "blocks": Shape(numbered=False),
    "compose": Shape(part_objects=True, numbered=False),
    "plain": Shape(conditional=False),
    "tight": Shape(scratch=6 * KIB),
}
FATES = [Fate.FAILS, Fate.UNHEARD, Fate.LATE]
SIZES = [300, SMALL + 1, PART // 2, PART, 3 * PART - 100]

turns = st.tuples(st.just("turn"), st.integers(0, 11))
runs = st.tuples(st.just("run"), st.integers(2, 60), st.integers(0, 999))
patches = st.tuples(
    st.just("patch"), st.integers(0, 2), st.sampled_from(["row", "row", "known"]), st.integers(0, 4), st.booleans()
)
parks = st.tuples(st.just("park"), st.integers(0, 2), st.integers(0, 99))
arrivals = st.tuples(st.just("arrive"), st.integers(0, 5), st.sampled_from([1, 300, SMALL + 1, PART, 3 * PART]))
fates = st.tuples(st.just("fate"), st.sampled_from(FATES))
takeovers = st.tuples(
    st.just("takeover"), st.integers(0, 2), st.sampled_from([0, 2, 3, 4, 4]), st.integers(6, 24), st.integers(0, 99)
)
steps = st.lists(
    st.one_of(
        *(turns, runs, runs, runs, patches, patches, arrivals, arrivals, fates, parks, *[takeovers] * 5),
        st.tuples(st.just("pump")),
        st.tuples(st.just("unpark"), st.integers(0, 7)),
        st.tuples(st.just("unpark"), st.integers(0, 7)),
        st.tuples(st.just("lose"), st.integers(0, 7)),
        st.tuples(st.just("head"), st.integers(0, 2)),
        st.tuples(st.just("freeze"), st.integers(0, 2)),
        st.tuples(st.just("thaw"), st.integers(0, 2)),
        st.tuples(st.just("die"), st.integers(0, 2)),
        st.tuples(st.just("advance"), st.sampled_from([0.05, 0.3, 2.0, 30.0])),
        st.tuples(st.just("land"), st.integers(0, 7)),
        st.tuples(st.just("unheard"), st.integers(0, 2), st.sampled_from([Fate.FAILS, Fate.UNHEARD])),
        st.tuples(st.just("away"), st.integers(0, 2)),
        st.tuples(st.just("sweep"), st.integers(0, 2)),
        st.tuples(st.just("stale")),
        st.tuples(st.just("delete"), st.integers(0, 2)),
    ),
    min_size=8,
    max_size=60,
)


@define(eq=False)
class Sent:
    """A PATCH, or the body of a creation. ``sent``: bytes of it that have arrived."""

    engine: Engine
    start: int
    data: bytes
    body: FakeBody
    answer: Answer[Upload]
    sent: int = 0


class Clients:
    """All clients of one upload, and what must be true whatever they, the workers and the store do."""

    def __init__(self, cluster: ObjectCluster, count: int, length: int | None, created: int) -> None:
        limits = UploadLimits(expire_after=86_400.0)
        self.cluster = cluster
        self.engines = [cluster.engine(limits=limits) for _ in range(count)]
        self.dead: list[Engine] = []
        self.sent: list[Sent] = []
        self.heads: list[Answer[Upload]] = []
        self.asked: list[tuple[Engine, Answer[Any]]] = []
        self.known = 0
        self.content = b""
        self.owner: Sent | None = None
        self.owned: set[int] = set()
        self.parked: list[Clock] = []
        self.gone = False
        if not created:
            self.upload_id = self.engines[0].create(length).value.id
            return
        engine, data = self.engines[0], pattern(created, 1)
        creation = tus.Creation(length, length is None, None, None, None, None, False, True)  # type: ignore[arg-type]
        body = engine._sent(FakeBody(created))
        self._send(engine, 0, data, body, engine.uploads.create(creation, body, engine.by))
        self.upload_id = f"{1:08x}{1:024x}"
        while self.upload_id not in cluster.catalog.rows.rows:
            if not cluster.due():
                body.arrive(data[:1])
                self.sent[0].sent = 1
            cluster.pump()

    def _send(self, engine: Engine, start: int, data: bytes, body: FakeBody, work: Any) -> None:
        self.sent.append(Sent(engine, start, data, body, self._ask(engine, work)))

    def _ask(self, engine: Engine, work: Any) -> Answer[Any]:
        answer: Answer[Any] = Answer(engine.machine, work)
        self.asked.append((engine, answer))
        return answer

    def under_way(self) -> list[Sent]:
        return [each for each in self.sent if not each.answer.done and each.body._result is None]

    def patch(self, engine: Engine, start: int, size: int) -> None:
        length = self.cluster.row(self.upload_id).length
        size = size if length is None else min(size, length - start)
        if size > 0:
            data, body = pattern(size, len(self.sent) + 2), engine._sent(FakeBody(size))
            work = engine.uploads.append(self.upload_id, tus.Append(start, None, None, False), body, engine.by)
            self._send(engine, start, data, body, work)

    def arrive(self, each: Sent, size: int) -> None:
        piece = each.data[each.sent : each.sent + size]
        each.sent += len(piece)
        each.body.arrive(piece)

    def check(self) -> None:
        cluster = self.cluster
        row = cluster.row(self.upload_id)
        if row.gone is not None:
            self.gone = True
            return
        content = cluster.content(self.upload_id)
        assert content.startswith(self.content), "committed bytes stay what they are"
        assert len(content) == row.offset, "all committed bytes can be read"
        self._own(content)
        self.content = content
        for head in self.heads:
            if head.done and head.error is None:
                assert head.value.offset <= row.offset, "no more is acknowledged than is there"
                self.known = max(self.known, head.value.offset)
        for sent in self.sent:
            if sent.answer.done and sent.answer.error is None:
                end = sent.answer.value.offset
                assert end == sent.start + sent.body.length
                assert content[sent.start : end] == sent.data, "nothing interleaves"
                self.known = max(self.known, end)
        for _, answer in self.asked:
            if answer.done and answer.error is not None:
                assert not isinstance(answer.error, TusError) or answer.status in REFUSALS, answer.error

    def _own(self, content: bytes) -> None:
        """Each byte is one that a client has sent to that offset, one client after the other."""
        at = len(self.content)
        while at < len(content):
            owner = self.owner
            if owner is not None and (size := _common(content, at, owner, owner.sent)):
                at += size
                continue
            found = [each for each in self.sent if each.start == at and id(each) not in self.owned]
            sizes = [_common(content, at, each, each.sent) for each in found]
            assert sizes and max(sizes), f"the bytes at {at} are no client's, or two clients'"
            self.owner = found[sizes.index(max(sizes))]
            self.owned.add(id(self.owner))

    def step(self, name: str, *given: Any) -> None:
        cluster = self.cluster
        engine = self.engines[given[0] % len(self.engines)] if given and isinstance(given[0], int) else self.engines[0]
        works = not engine.frozen
        if name == "turn":
            if due := cluster.due():
                cluster.turn(due[given[0] % len(due)])
        elif name == "run":
            self.run(*given)
        elif name == "patch" and works:
            start = {"row": cluster.row(self.upload_id).offset, "known": self.known}[given[1]]
            self.patch(engine, start, SIZES[given[2]])
            if given[3] and self.under_way() and self.sent[-1].sent == 0:
                self.arrive(self.sent[-1], len(self.sent[-1].data))
        elif name == "arrive" and (under_way := self.under_way()):
            self.arrive(under_way[given[0] % len(under_way)], given[1])
        elif name == "lose" and (under_way := self.under_way()):
            under_way[given[0] % len(under_way)].body.lose()
        elif name == "head" and works:
            self.heads.append(self._ask(engine, engine.uploads.inspect(self.upload_id)))
        elif name == "delete" and works:
            self._ask(engine, engine.uploads.terminate(self.upload_id))
        elif name == "freeze":
            engine.freeze()
        elif name == "park":  # what is on its way to the store stays there, and its engine freezes after some steps
            self.run(given[1] % 16, given[1])
            engine.freeze()
            self.parked += cluster.requests
            cluster.requests.clear()
        elif name == "takeover":  # one freezes with requests under way, and another goes on
            number, size, count, seed = given
            for step in (
                ("patch", number, "row", size, True),
                ("run", count, seed),
                ("park", number, 0),
                ("patch", number + 1, "row", size, True),
                ("run", 2 * count, seed),
            ):
                self.step(*step)
                self.check()
        elif name == "unpark" and self.parked:
            self.unpark(given[0] % len(self.parked))
        elif name == "thaw" and engine not in self.dead:
            engine.frozen, engine.clock.rightNow = False, cluster.clock.rightNow
        elif name == "die" and len(self.dead) + 1 < len(self.engines) and engine not in self.dead:
            engine.die()
            self.dead.append(engine)
        elif name == "advance":
            cluster.advance(given[0])
            for each in self.engines:
                if not each.frozen:
                    each.uploads.appends.tick(each.clock.seconds())
        elif name == "pump":
            cluster.pump()
        elif name == "fate":
            cluster.bucket.fates.append(given[0])
        elif name == "land" and cluster.bucket.late:
            cluster.bucket.land(given[0] % cluster.bucket.late)
        elif name == "unheard":
            engine.context.catalog.fates.append(given[1])
        elif name == "away":
            store = engine.context.spool.context.store
            store.away = not store.away
        elif name == "sweep" and works:
            self._ask(engine, engine.completer.sweep())
        elif name == "stale":
            cluster.bucket.stale = not cluster.bucket.stale

    def run(self, count: int, seed: int) -> None:
        """Turns in an order of that seed."""
        rng = Random(seed)
        for _ in range(count):
            if due := self.cluster.due():
                self.cluster.turn(rng.choice(due))

    def unpark(self, which: int) -> None:
        """A request arrives, however long ago it was sent."""
        request = self.parked.pop(which)
        request.rightNow = self.cluster.clock.rightNow
        self.cluster.requests.append(request)
        self.cluster.turn(request)

    def calm(self) -> None:
        """Nothing fails any more, and those that live go on."""
        self.cluster.bucket.fates.clear()
        for engine in self.engines:
            engine.context.spool.context.store.away = False
            engine.context.catalog.fates.clear()
            if engine not in self.dead:
                engine.frozen, engine.clock.rightNow = False, self.cluster.clock.rightNow

    def end(self) -> None:
        """All requests end; an upload that isn't gone is finished and gets its object, whatever lands late."""
        cluster = self.cluster
        self.calm()
        while self.parked:
            self.unpark(-1)
        cluster.pump()
        for sent in self.sent:
            sent.body.lose()
        cluster.advance(10)
        self.check()
        living = [each for each in self.engines if each not in self.dead]
        assert all(answer.done for engine, answer in self.asked if engine in living), "every request is answered"
        assert all(engine.context.holds.count == 0 for engine in living), "every hold is given back"
        cluster.check_given_back(living)
        row = cluster.row(self.upload_id)
        engine = living[-1]
        if row.gone is None and not row.finished:
            cluster.bucket.land()
            self.check()
            self.finish(engine, row)
        for each in self.dead:  # it wakes after all of that
            each.frozen, each.clock.rightNow = False, cluster.clock.rightNow
        cluster.advance(10)
        if cluster.row(self.upload_id).gone is None:
            for _ in range(4):
                engine.ask(engine.completer.sweep())
                cluster.advance(2000)
            assert cluster.stored(self.upload_id).whole, "it becomes one object"
            self.check()
            cluster.bucket.land()
            self.check()
            assert cluster.object(self.upload_id) == self.content

    def finish(self, engine: Engine, row: Upload) -> None:
        head = engine.head(self.upload_id).value
        assert head.offset >= self.known, "an offset never goes back"
        rest = pattern(2 * PART if row.length is None else row.length - row.offset, 1001)
        length = row.offset + len(rest) if row.length is None else None
        self.sent.append(Sent(engine, row.offset, rest, FakeBody.whole(rest), None, len(rest)))  # type: ignore[arg-type]
        answer = engine.patch(self.upload_id, row.offset, rest, length=length)
        self.sent[-1].answer = answer
        self.cluster.advance(5)
        assert answer.value.finished
        self.check()


def _common(content: bytes, at: int, sent: Sent, end: int) -> int:
    """How many bytes from there on are of this request."""
    mine = sent.data[at - sent.start : end] if at >= sent.start else b""
    size = min(len(mine), len(content) - at)
    while size and mine[:size] != content[at : at + size]:
        size -= 1
    return size


def run(shape: str, count: int, length: int | None, created: int, story: list[Any]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, small_sizes():
        cluster = ObjectCluster(Path(directory), shape=SHAPES[shape])
        clients = Clients(cluster, count, length, created)
        for step in story:
            clients.step(*step)
            clients.check()
        clients.end()
        cluster.bury()


LENGTHS = [SMALL + 150, 3 * PART, 10 * PART, 10 * PART + 17, None]
CREATED = [0, 0, SMALL + 150, 3 * PART]


@settings(max_examples=5)
@given(
    st.sampled_from(sorted(SHAPES)), st.sampled_from([2, 3]), st.sampled_from(LENGTHS), st.sampled_from(CREATED), steps
)
def test_whatever_the_store_and_the_workers_do_no_acknowledged_byte_is_missing_or_another(
    shape, count, length, created, story
):
    """Offsets never go back, what is acknowledged can be read from row and store, and the object has just that."""
    run(shape, count, length, min(created, length or created), story)


#: How often each step comes in the stories below: most are about a worker that takes over from a frozen one.
OFTEN = {
    **{"takeover": 50, "run": 40, "patch": 30, "arrive": 20, "pump": 30, "unpark": 10, "lose": 20, "land": 20},
    **{"fate": 20, "park": 10, "head": 10, "freeze": 10, "thaw": 5, "die": 3, "advance": 20, "unheard": 5},
    **{"away": 5, "sweep": 10, "stale": 3, "delete": 1, "turn": 10},
}


def told(rng: Random) -> list[Any]:
    """A story that gets further than hypothesis' do."""
    story: list[Any] = []
    for name in rng.choices(list(OFTEN), list(OFTEN.values()), k=rng.randint(5, 40)):
        number = rng.randint(0, 11)
        given: dict[str, tuple[Any, ...]] = {
            "takeover": (number, rng.choice([0, 2, 3, 4, 4]), rng.randint(4, 30), rng.randint(0, 99)),
            "run": (rng.randint(2, 60), number),
            "patch": (number, rng.choice(["row", "row", "known"]), rng.randint(0, 4), rng.random() < 0.6),
            "arrive": (number, rng.choice([1, 300, SMALL + 1, PART, 3 * PART])),
            "fate": (rng.choice(FATES),),
            "park": (number, rng.randint(0, 99)),
            "advance": (rng.choice([0.05, 0.3, 2.0, 30.0]),),
            "unheard": (number, rng.choice([Fate.FAILS, Fate.UNHEARD])),
        }
        story.append((name, *given.get(name, (number,))))
    return story


def tell(seed: int) -> None:
    rng = Random(seed)
    length = rng.choice(LENGTHS)
    created = min(rng.choice(CREATED), length or LIMITS.largest_object)
    run(rng.choice(sorted(SHAPES)), rng.choice([2, 3]), length, created, told(rng))


@pytest.mark.parametrize("seed", range(0, 9, 3))
def test_and_in_stories_of_workers_that_take_over_from_each_other(seed):
    for each in range(seed, seed + 3):
        tell(each)


@long
@pytest.mark.parametrize("seed", range(1000, 6000, 100))
def test_and_in_thousands_of_them(seed):
    for each in range(seed, seed + 100):
        tell(each)
