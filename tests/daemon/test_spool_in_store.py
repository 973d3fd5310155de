"""A spool in an object store: what is refused at the start, and how it is known whether the store can be reached."""

from __future__ import annotations

import errno
import os
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from resumable.daemon.spool_in_store import AGAIN, LOOK, StoreWatch, check_known, made_store, ready
from resumable.model.errors import StartupError
from resumable.remotes import urls
from resumable.remotes.urls import RemoteSpec
from resumable.spool.objects.scratch import ScratchDisk
from resumable.testing.memory_store import MemoryStore
from tests.parsing import parse

SPEC = RemoteSpec("s3", "s3://bucket/prefix", "bucket", prefix="prefix")
DAY = 86400.0


class Marked:
    """A catalog; ``seen``: the marker of its store."""

    def __init__(self, seen: bool) -> None:
        self.seen = seen

    def is_marked(self) -> Deferred[bool]:
        return succeed(self.seen)

    def marked(self) -> Deferred[None]:
        self.seen = True
        return succeed(None)


def watching(store: MemoryStore, clock: Clock | None = None, seen: bool = False, installation: str = "here") -> Any:
    """A watch, and how often it has found the store to be another's."""
    strangers: list[int] = []
    clock = clock or Clock()
    watch = StoreWatch(store, installation, Marked(seen), lambda: strangers.append(1), clock)
    return watch, strangers


def look(watch: StoreWatch) -> None:
    Deferred.fromCoroutine(watch.look())


def test_a_store_is_lost_after_two_looks_and_found_with_the_first() -> None:
    store = MemoryStore()
    watch, _ = watching(store)
    assert watch.fault == "the object store has not answered yet"
    look(watch)
    store.sent.clear()
    look(watch)
    store.down = True
    look(watch)
    assert watch.fault is None
    look(watch)
    assert watch.fault is not None and watch.fault.startswith("the object store can't be used: ")
    store.down = False
    look(watch)
    assert watch.fault is None
    assert set(store.sent) == {"find"} and store.sent["find"] == 4


def test_a_store_that_says_nothing_is_not_waited_for() -> None:
    store, clock = MemoryStore(), Clock()

    async def wait(method: str, key: str) -> None:
        await Deferred()

    store.before = wait
    watch, _ = watching(store, clock)
    for _ in range(2):
        look(watch)
        clock.advance(LOOK)
    assert watch.wrong == f"the object store can't be used: no answer in {LOOK:.0f} s"


def test_the_log_tells_once_that_the_store_fails_and_once_that_it_works() -> None:
    store, clock = MemoryStore(), Clock()
    store.down = True
    with capturedLogs() as logged:
        Deferred.fromCoroutine(ready("s3://bucket/prefix", store, clock))
        clock.advance(AGAIN)
        store.down = False
        clock.advance(AGAIN)
    said = [formatEvent(each) for each in logged if each["log_namespace"].endswith("spool_in_store")]
    assert len(said) == 2 and said[0].startswith("the spool s3://bucket/prefix does not work, and is tried again: ")
    assert said[1] == "spool ready: s3://bucket/prefix" and not clock.getDelayedCalls()


def test_the_error_of_a_full_disk_says_what_to_change() -> None:
    full = os.open("/dev/full", os.O_RDWR)
    with pytest.raises(OSError, match="--run-dir, or lower --scratch-size") as caught:
        ScratchDisk().writev(full, [b"x"], 0)
    os.close(full)
    assert caught.value.errno == errno.ENOSPC


def test_the_marker_is_made_once_however_late_and_known_from_then_on() -> None:
    store = MemoryStore()
    first, strangers = watching(store)
    store.down = True
    look(first)
    look(first)
    assert not first.is_ours
    store.down = False
    look(first)
    assert first.is_ours and first.wrong is None and first._catalog.seen and store.sent["put"] == 1
    again, _ = watching(store, seen=True)
    look(again)
    assert again.is_ours and store.sent["put"] == 1
    other, strangers = watching(store, installation="elsewhere")
    look(other)
    assert not other.is_ours and strangers and "another catalog" in str(other.wrong)


def test_a_store_without_the_marker_of_known_uploads_is_not_used() -> None:
    """It is another store, or an empty bucket of the same name."""
    store, done = MemoryStore(), []
    watch, strangers = watching(store, seen=True)

    async def work() -> None:
        done.append(1)

    for _ in range(2):
        look(watch)
        Deferred.fromCoroutine(watch.if_ours(work)())
    assert not done and not strangers and "put" not in store.sent
    assert "the marker of this catalog's uploads isn't there" in str(watch.wrong)


@pytest.mark.parametrize("known", ["s3://other/prefix", "s3://bucket", "0123456789abcdef", None])
def test_another_place_than_the_catalogs_is_refused(known: str | None) -> None:
    with pytest.raises(StartupError) as caught:
        check_known("s3://bucket/prefix", known)
    said = str(caught.value)
    assert "--spool" in said and "\n" not in said
    assert ("an upload directory" in said) is (known is None or "://" not in known)


def test_the_catalogs_place_and_that_of_a_new_catalog_are_fine() -> None:
    check_known("s3://bucket/prefix", "s3://bucket/prefix")
    check_known("s3://bucket/prefix", None, is_new=True)
    check_known("s3://bucket/prefix", "s3://mistyped/prefix", is_free=True)


def refused(monkeypatch: pytest.MonkeyPatch, store: MemoryStore, *flags: str) -> str | None:
    monkeypatch.setattr(urls, "make_store", lambda spec, services: store)
    nothing: Any = None
    try:
        made_store(parse("--catalog", "postgresql://h/d", *flags), SPEC, nothing, nothing, Random(1))
    except StartupError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("expire_after", "fits"), [("6d", True), ("1h", True), ("7d", False), ("never", False)])
def test_what_the_store_drops_after_a_week_must_expire_before(
    expire_after: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused(monkeypatch, MemoryStore(lifetime=7 * DAY), "--expire-after", expire_after)
    assert (said is None) is fits
    assert said is None or "--expire-after 6d or less" in said


def test_a_store_that_keeps_parts_for_ever_takes_any_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(monkeypatch, MemoryStore(), "--expire-after", "never") is None


def test_scratch_holds_four_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(part_size=300 << 20)
    said = refused(monkeypatch, store)
    assert said is not None and said.startswith("--scratch-size 1G is too small: it must hold 4 parts of 300M;")
    store.part_size = 256 << 20
    assert refused(monkeypatch, store) is None


def test_a_store_that_can_not_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: object) -> None:
        raise urls.BadRemote("spool s3://bucket: it lacks a key")

    monkeypatch.setattr(urls, "make_store", make)
    nothing: Any = None
    with pytest.raises(StartupError, match="it lacks a key"):
        made_store(parse(), SPEC, nothing, nothing, Random(1))
