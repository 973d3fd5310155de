"""The object store in memory: the contract, in each of its kinds, and the faults that tests of others lean on."""

from __future__ import annotations

import re
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from resumable.remotes.errors import Conflict, NotThere, Permanent, Transient
from resumable.remotes.object_store import ObjectProperties, SentPart
from resumable.remotes.regions import BytesRegion
from resumable.testing.contract.spool_stores import ObjectStoreContract
from resumable.testing.memory_catalog import Fate
from resumable.testing.memory_store import MemoryStore


class InMemory(ObjectStoreContract):
    knobs: ClassVar[dict[str, Any]] = {}

    def make_store(self) -> MemoryStore:
        return MemoryStore("some/prefix/", **self.knobs)

    def fetch(self, url, headers):
        parts = urlsplit(url)
        fields = {name: values[0] for name, values in parse_qs(parts.query).items()}
        data = self.store.objects[unquote(parts.path)[1:]].data
        given = {"content-type": fields["type"], "content-disposition": fields["disposition"]}
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", ""))
        return (206, given, data[int(span[1]) : int(span[2]) + 1]) if span else (200, given, data)


class TestNumbered(InMemory, SynchronousTestCase):
    """As S3."""


class TestEqual(InMemory, SynchronousTestCase):
    """As R2."""

    knobs: ClassVar = {"equal": True}


class TestWithoutConditions(InMemory, SynchronousTestCase):
    """As stores that are looked at first."""

    knobs: ClassVar = {"conditional": False}


class TestBlocks(InMemory, SynchronousTestCase):
    """As Azure."""

    has_multiparts = False
    knobs: ClassVar = {"numbered": False}


class TestPartObjects(InMemory, SynchronousTestCase):
    """As Google."""

    has_multiparts = False
    knobs: ClassVar = {"part_objects": True, "copies_ranges": False}


OURS = ObjectProperties("i" * 32, "ours", {})
THEIRS = ObjectProperties("i" * 32, "theirs", {})


def answer(deferred):
    results = []
    deferred.addBoth(results.append)
    return results[0]


def put(store, data, properties, only_new=True):
    return answer(store.put("key", BytesRegion(data), properties, only_new))


def test_a_request_fails_without_effect():
    store = MemoryStore()
    store.fates.append(Fate.FAILS)
    assert put(store, b"one", OURS).check(Transient)
    assert (store.objects, store.late, store.land()) == ({}, 0, 0)
    assert put(store, b"one", OURS).size == 3
    assert store.sent == {"put": 2}


def test_an_effect_is_unheard():
    store = MemoryStore()
    store.fates_of["put"].append(Fate.UNHEARD)
    assert put(store, b"one", OURS).check(Transient)
    assert store.objects["key"].token == "ours"
    assert store.late == 0


def test_a_late_put_lands_whenever_and_keeps_its_condition():
    store = MemoryStore()
    store.fates += [Fate.LATE, Fate.LATE]
    put(store, b"one", OURS)
    put(store, b"one, and it replaces", OURS, only_new=False)
    put(store, b"two", THEIRS)
    assert store.land(0) == 0, "it had a condition"
    assert store.objects["key"].token == "theirs"
    assert (store.late, store.land()) == (1, 1)
    assert store.objects["key"].data == b"one, and it replaces"


def test_a_late_part_overwrites_its_number_and_finds_no_multipart_that_is_complete():
    store = MemoryStore()
    handle = answer(store.begin("key", OURS))
    store.fates.append(Fate.LATE)
    answer(store.write_part("key", handle, 1, "a", BytesRegion(b"late")))
    store.fates.append(Fate.LATE)
    answer(store.write_part("key", handle, 2, "b", BytesRegion(b"later")))
    receipt = answer(store.write_part("key", handle, 1, "c", BytesRegion(b"part")))
    assert store.land(0) == 1
    part = SentPart(1, "c", 4, receipt)
    assert answer(store.complete("key", handle, OURS, [part], True)).check(Permanent)
    receipt = answer(store.write_part("key", handle, 1, "c", BytesRegion(b"part")))
    assert answer(store.complete("key", handle, OURS, [part], True)).size == 4
    assert store.land() == 0
    assert answer(store.write_part("key", handle, 3, "d", BytesRegion(b"x"))).check(NotThere)


def test_an_unheard_completion_is_found_by_its_token():
    store = MemoryStore()
    handle = answer(store.begin("key", OURS))
    parts = [SentPart(4, "a", 4, answer(store.write_part("key", handle, 4, "a", BytesRegion(b"part"))))]
    store.fates_of["complete"].append(Fate.UNHEARD)
    assert answer(store.complete("key", handle, OURS, parts, True)).check(Transient)
    assert answer(store.complete("key", handle, OURS, parts, True)).check(NotThere)
    assert answer(store.find("key")).token == store.token_of(handle)


def test_without_conditions_others_come_between_the_look_and_the_put():
    store, waiting = MemoryStore(conditional=False), Deferred()
    store.before = lambda operation, key: waiting if operation == "put" else answer_none()
    ours = store.put("key", BytesRegion(b"ours"), OURS, True)
    store.before = None
    put(store, b"theirs", THEIRS)
    waiting.callback(None)
    assert answer(ours).token == "ours", "it replaced theirs"
    assert put(store, b"more", THEIRS).check(Conflict)


async def answer_none():
    return None


def test_lists_are_stale():
    store = MemoryStore("p/")
    answer(store.write("p/a", BytesRegion(b"a")))
    answer(store.begin("p/key", OURS))
    store.stale = True
    answer(store.write("p/b", BytesRegion(b"b")))
    answer(store.remove(["p/a"]))
    answer(store.drop(answer(store.list_unfinished(5, None))[0]))
    assert [each.key for each in answer(store.list("p/", "", 9))] == ["p/a"]
    assert len(answer(store.list_unfinished(5, None))) == 1
    store.stale = False
    assert [each.key for each in answer(store.list("p/", "", 9))] == ["p/b"]
    assert answer(store.list_unfinished(5, None)) == []


def test_it_is_down():
    store = MemoryStore()
    store.down = True
    for asked in (store.find("key"), store.list("", "", 1), store.probe(), store.write("a", BytesRegion(b"a"))):
        assert answer(asked).check(Transient)
    assert store.land() == 0
    assert store.sent.total() == 4


@pytest.mark.parametrize(
    ("sizes", "numbers", "equal"),
    [((10, 64), (1, 2), False), ((64, 64), (2, 1), False), ((64, 70, 3), (1, 2, 3), True), ((64, 65), (1, 2), True)],
)
def test_it_refuses_what_stores_refuse(sizes, numbers, equal):
    store = MemoryStore(equal=equal)
    handle = answer(store.begin("key", OURS))
    parts = []
    for number, size in zip(numbers, sizes, strict=True):
        receipt = answer(store.write_part("key", handle, number, "n", BytesRegion(bytes(size))))
        parts.append(SentPart(number, "n", size, receipt))
    assert answer(store.complete("key", handle, OURS, parts, True)).check(Permanent)
    right = sorted((evolve(part) for part in parts[-1:]), key=lambda part: part.number)
    assert answer(store.complete("key", handle, OURS, right, True)).size == sizes[-1]
