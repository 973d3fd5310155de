"""Final uploads in an object store, and downloads of them, by the real use cases of several workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from resumable.model.upload import Fact, Upload
from resumable.protocol.errors import TusError
from resumable.testing.memory_catalog import Fate
from resumable.uploads.context import UploadContext
from resumable.uploads.status import Elsewhere
from tests.uploads.cluster_rig import Engine
from tests.uploads.final_requests import request
from tests.uploads.harness import pattern
from tests.uploads.object_cluster import PART, SMALLEST, ObjectCluster, Shape, small_sizes

SHAPES = {
    "s3": Shape(),
    "equal": Shape(equal=True),
    "blocks": Shape(numbered=False),
    "compose": Shape(part_objects=True, numbered=False),
    "plain": Shape(conditional=False),
}
A, B, C = pattern(3 * PART + 100), pattern(SMALLEST - 1, 2), pattern(2 * PART, 3)

Make = Callable[..., ObjectCluster]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[ObjectCluster] = []

    def start(shape: str = "s3") -> ObjectCluster:
        made.append(ObjectCluster(tmp_path, shape=SHAPES[shape]))
        return made[-1]

    with small_sizes():
        yield start
        for cluster in made:
            cluster.bury()


def whole(cluster: ObjectCluster, engine: Engine, upload_id: str) -> bool:
    """Whether it is, once all that was left was completed."""
    engine.advance(20)
    Deferred.fromCoroutine(engine.completer.sweep())
    engine.pump()
    return cluster.stored(upload_id).whole


def read(engine: Engine, upload_id: str, start: int, size: int) -> bytes:
    """As a download does it."""
    caught: list[Any] = []
    engine.uploads.read(upload_id).addErrback(lambda failure: caught.append(failure.value))
    engine.pump()
    (elsewhere,) = caught
    assert isinstance(elsewhere, Elsewhere) and elsewhere.file is not None
    copies: list[Any] = []
    elsewhere.file.open_copy(upload_id, start, size).addCallback(copies.append)
    engine.pump()
    found = b""
    while len(found) < size:
        copies[0].read(start + len(found), size).addCallback(copies.append)
        engine.pump()
        found += copies.pop()
    copies[0].close()
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["b", "abc", "bbbbc"])
def test_a_final_of_partials_of_several_workers_is_read_at_any(make: Make, shape: str, order: str) -> None:
    cluster = make(shape)
    one, two = cluster.engine(), cluster.engine()
    data = {"a": A, "b": B, "c": C}
    ids = {each: (one, two)[number % 2].upload(data[each], partial=True) for number, each in enumerate("abc")}
    final = two.concat(*(ids[each] for each in order)).value
    assert final.finished
    expected = b"".join(data[each] for each in order)
    assert cluster.content(final.id) == expected
    assert whole(cluster, one, final.id)
    assert cluster.content(final.id) == expected == read(one, final.id, 0, len(expected))
    assert read(two, final.id, 1000, 500) == expected[1000:1500]
    cluster.check_given_back()
    assert not [key for key in cluster.bucket.unfinished if key.endswith(final.id)]


def test_a_final_waits_for_partials_that_become_objects_late(make: Make) -> None:
    cluster = make()
    engine = cluster.engine()
    first = engine.upload(C, partial=True)
    cluster.bucket.fates_of["complete"].extend([Fate.FAILS] * 50)
    second = engine.upload(A, partial=True)
    answer = engine.concat(first, second)
    engine.advance(6)
    assert answer.status == 503, "its object isn't there"
    cluster.bucket.fates_of.clear()
    assert whole(cluster, engine, second)
    final = engine.concat(first, second).value
    assert final.finished and cluster.content(final.id) == C + A


@pytest.mark.parametrize("steps", range(1, 70, 4))
def test_a_frozen_copier_changes_nothing_for_the_one_that_takes_over(make: Make, steps: int) -> None:
    """Wherever it stops."""
    cluster = make()
    one, two = cluster.engine(), cluster.engine()
    partials = [one.upload(each, partial=True) for each in (A, B, C)]
    whole(cluster, one, partials[0])
    body = one.uploads.concatenate(*request(*partials))
    body.addErrback(lambda failure: failure.trap(TusError))
    for _ in range(steps):
        for clock in cluster.due()[:1]:
            cluster.turn(clock)
    one.die()
    two.advance(1)
    finals = [each for each in cluster.catalog.rows.rows if each not in partials]
    two.assembler.start()
    two.advance(31)
    for final_id in finals:
        assert cluster.row(final_id).finished and cluster.content(final_id) == A + B + C
    one.thaw()
    two.advance(31)
    for final_id in finals:
        assert whole(cluster, two, final_id) and cluster.content(final_id) == A + B + C


@pytest.mark.parametrize("size", [SMALLEST // 2, 3 * PART])
def test_that_a_final_is_stored_is_told_once(make: Make, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """With its commit where it is one object by then, else with the object."""
    told: list[str] = []

    def stored_facts(context: UploadContext, upload: Upload) -> Sequence[Fact]:
        told.append(upload.id)
        return ()

    monkeypatch.setattr(UploadContext, "stored_facts", stored_facts)
    cluster = make()
    engine = cluster.engine()
    partials = [engine.upload(pattern(size, seed), partial=True) for seed in range(2)]
    final = engine.concat(*partials).value
    assert whole(cluster, engine, final.id)
    assert told.count(final.id) == 1
