"""Several appends of one engine share a scratch that is too small for them, while requests that were given up hold on
to bytes, others fail, and clients go and come again: what is acknowledged is what was sent, and all room is given back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import evolve

from resumable.testing.memory_catalog import Fate
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import Answer, pattern
from tests.uploads.object_cluster import KIB, PART, ObjectCluster, Shape, small_sizes
from tests.waiting import long

SHAPES = [Shape(), Shape(equal=True), Shape(numbered=False), Shape(numbered=False, part_objects=True)]
SCRATCHES = [3, 4, 6, 10, 16]
SIZES = [PART, 2 * PART, 3 * PART + 17, 6 * PART]
ARRIVALS = [100, 700, 1500, 2000, 2 * KIB, PART]
WRITES = ("write", "write_part", "put")
FATES = [Fate.FAILS, Fate.UNHEARD, Fate.LATE]
#: How often each step comes.
OFTEN = {"arrive": 50, "lose": 5, "return": 10, "fate": 5, "land": 2, "turns": 18, "pump": 5, "advance": 5, "look": 2}


class Client:
    """Of one upload. ``at``: up to where it has sent."""

    def __init__(self, engine: Any, size: int, seed: int) -> None:
        self.engine, self.data = engine, pattern(size, seed)
        self.id: str = engine.create(size).value.id
        self.at = 0
        self.body: FakeBody | None = None
        self.answer: Answer[Any] | None = None

    @property
    def sends(self) -> bool:
        return self.body is not None and self.answer is not None and not self.answer.done and self.body._result is None

    def arrive(self, size: int) -> None:
        if not self.sends:
            self.at = self.engine.row(self.id).offset
            if self.at == len(self.data) or (self.answer is not None and not self.answer.done):
                return
            self.body = FakeBody(len(self.data) - self.at)
            self.answer = self.engine.patch(self.id, self.at, self.body)
        if self.sends:
            assert self.body is not None
            self.body.arrive(self.data[self.at : self.at + size])
            self.at = min(self.at + size, len(self.data))

    def lose(self) -> None:
        if self.sends and self.at < len(self.data):
            assert self.body is not None
            self.body.lose()


class Story:
    """``loans``: give back what requests that were given up still have."""

    def __init__(self, cluster: ObjectCluster, rng: Random) -> None:
        self.cluster, self.rng = cluster, rng
        self.engine: Any = cluster.engine()
        self.clients = [Client(self.engine, rng.choice(SIZES), seed) for seed in range(rng.choice([2, 3, 4]))]
        self.loans: list[Callable[[], None]] = []
        store = self.engine.context.spool.context.store
        for name in WRITES:
            setattr(store, name, self._lending(getattr(store, name)))

    def _lending(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*given: Any) -> Any:
            region = next(each for each in given if hasattr(each, "lend"))
            if region.size and self.rng.random() < 0.3:
                loan = region.lend()
                sent = loan.read(0, region.size)

                def give_back() -> None:
                    assert loan.read(0, region.size) == sent, "what a thread sends stays"
                    loan.give_back()

                self.loans.append(give_back)
            return method(*given)

        return ask

    def step(self, name: str) -> None:
        cluster, rng, client = self.cluster, self.rng, self.rng.choice(self.clients)
        if name == "arrive":
            client.arrive(rng.choice(ARRIVALS))
        elif name == "lose":
            client.lose()
        elif name == "return" and self.loans:
            self.loans.pop(rng.randrange(len(self.loans)))()
        elif name == "fate":
            cluster.bucket.fates_of[rng.choice(["write", "write_part"])].append(rng.choice(FATES))
        elif name == "land":
            cluster.bucket.land()
        elif name == "turns":
            for _ in range(rng.randint(1, 20)):
                if due := cluster.due():
                    cluster.turn(rng.choice(due))
        elif name == "pump":
            cluster.pump()
        elif name == "look":
            self.engine.head(client.id)
        elif name == "advance":
            cluster.advance(rng.choice([0.05, 0.3, 2.0]))
        self.check()

    def check(self) -> None:
        for each in self.clients:
            assert self.cluster.content(each.id) == each.data[: self.cluster.stored(each.id).offset]

    def end(self) -> None:
        """All requests end, and those that come then finish the uploads."""
        self.cluster.bucket.fates_of.clear()
        for _ in range(3):
            for each in self.clients:
                each.arrive(len(each.data))
            for _ in range(5):
                while self.loans:
                    self.loans.pop()()
                self.cluster.advance(20)
        for _ in range(5):
            self.engine.ask(self.engine.completer.sweep())
            while self.loans:
                self.loans.pop()()
            self.cluster.advance(20)
        self.cluster.bucket.land()
        for each in self.clients:
            assert self.cluster.object(each.id) == each.data


def tell(seed: int) -> None:
    rng = Random(seed)
    shape = evolve(rng.choice(SHAPES), scratch=rng.choice(SCRATCHES) * KIB)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, small_sizes():
        cluster = ObjectCluster(Path(directory), shape=shape)
        story = Story(cluster, rng)
        for name in rng.choices(list(OFTEN), list(OFTEN.values()), k=rng.randint(40, 150)):
            story.step(name)
        story.end()
        cluster.bury()
        cluster.check_given_back()


@pytest.mark.parametrize("seed", range(0, 60, 20))
def test_acknowledged_bytes_are_those_that_were_sent_however_short_scratch_is(seed):
    for each in range(seed, seed + 20):
        tell(each)


@long
@pytest.mark.parametrize("seed", range(1000, 5000, 100))
def test_and_in_thousands_of_stories(seed):
    for each in range(seed, seed + 100):
        tell(each)
