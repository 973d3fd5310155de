"""Reading finished uploads from their objects, and making finals of them inside the store."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from random import Random
from threading import Thread
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, DeferredSemaphore, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure

from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Commit, GoneReason, Piece, StoreChange, StoredPart, Upload
from resumable.remotes.errors import Permanent, Transient
from resumable.remotes.object_store import ObjectProperties, SentPart, made_from
from resumable.remotes.plan import ObjectTooLarge, PartLimits
from resumable.remotes.regions import BytesRegion, RegionWindow
from resumable.spool import Budget, Disk
from resumable.spool.datafile import NotReadable, NotWhole
from resumable.spool.objects import copy_plan, object_reader
from resumable.spool.objects.append_parts import StoreContext
from resumable.spool.objects.copy_plan import SourceStretch, plan_copies
from resumable.spool.objects.errors import StoreFailed
from resumable.spool.objects.object_assembly import AssemblyTools, ObjectAssembly
from resumable.spool.objects.object_names import ObjectNames
from resumable.spool.objects.object_reader import ObjectReader, WholeObjects
from resumable.spool.objects.object_spool import ObjectSpool
from resumable.spool.objects.scratch import Scratch
from resumable.testing import SteppedPool
from resumable.testing.memory_catalog import Fate
from resumable.testing.memory_store import MemoryStore
from resumable.testing.memory_stored import MemoryStored

T = TypeVar("T")

FINAL = "f" * 32
TEN = bytes(range(10)) * 100


class World:
    """A store, a catalog, and one worker's reads and assemblies."""

    def __init__(self, place: Path, **store: Any) -> None:
        self.clock = Clock()
        self.store = MemoryStore("in/", **store)
        self.stored = MemoryStored()
        numbers = itertools.count(1)
        self.names = ObjectNames("in/", "w", lambda: f"{next(numbers):04}")
        self.scratch = Scratch(str(place), 1 << 20, Disk())
        self.pool = SteppedPool(self.clock)
        self.pool.start()
        context = StoreContext(
            self.names, self.store, self.stored, self.scratch, self.clock, Random(1), DeferredSemaphore(4)
        )
        self.objects = WholeObjects(context, self.pool, self.clock)  # type: ignore[arg-type]
        self.whole: Callable[[str, float], Deferred[bool]] = lambda upload_id, seconds: succeed(False)
        self.tools = AssemblyTools(
            self.objects, lambda _: succeed({"filename": b"x"}), lambda *asked: self.whole(*asked)
        )
        self._ids = itertools.count(1)

    def ask(self, work: Awaitable[T]) -> T:
        found: list[Any] = []
        deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)  # type: ignore[arg-type]
        deferred.addBoth(found.append)
        for _ in range(10_000):
            if found:
                break
            calls = self.clock.getDelayedCalls()
            assert calls, "it never comes"
            self.clock.advance(max(0.0, min(each.getTime() for each in calls) - self.clock.seconds()))
        if isinstance(found[0], Failure):
            found[0].raiseException()
        return found[0]  # type: ignore[no-any-return]

    def upload(self, data: bytes, *, concat: str | None = None, whole: bool = True) -> str:
        """A finished one, with its object."""
        upload_id = f"{next(self._ids):032x}"
        upload = Upload(upload_id, 0, 0, len(data), concat=concat)
        assert self.ask(self.stored.create(upload, ()))
        if whole:
            self.make_whole(upload_id, data)
        return upload_id

    def make_whole(self, upload_id: str, data: bytes) -> None:
        row = self.ask(self.stored.get(upload_id))
        assert row is not None
        key = self.names.key(upload_id, row.is_partial)
        made = self.ask(self.store.put(key, BytesRegion(data), ObjectProperties(upload_id, "t", {}), True))
        change = Commit(
            upload_id, row.epoch, 0, len(data), 0, len(data), True, segment=StoreChange(0, made=made.to_json())
        )
        assert self.ask(self.stored.commit(change))

    def final(self, *sizes: int) -> tuple[ObjectAssembly, bytes]:
        """The assembly of partials of these sizes, and the bytes that it should get."""
        parts = [Random(number).randbytes(size) for number, size in enumerate(sizes)]
        ids = [self.upload(part, concat="partial") for part in parts]
        self.create_final(ids)
        self.store.sent.clear()
        return self.assembly(list(zip(ids, sizes, strict=True))), b"".join(parts)

    def create_final(self, ids: Sequence[str]) -> None:
        assert self.ask(self.stored.create(Upload(FINAL, 0, 0, concat="final", partials=tuple(ids)), ()))

    def assembly(self, sources: Sequence[tuple[str, int]]) -> ObjectAssembly:
        return ObjectAssembly(self.tools, FINAL, sources)

    def run(self, assembly: ObjectAssembly) -> None:
        """As `Building` does it, up to the commit."""
        self.ask(assembly.look())
        while not assembly.complete:
            self.ask(assembly.copy(assembly.next_size(shared=False)))
        self.ask(assembly.name())

    def commit(self, assembly: ObjectAssembly) -> bool:
        return self.ask(
            self.stored.commit(Commit(FINAL, 0, 0, assembly.length, 0, assembly.length, True, segment=assembly.segment))
        )

    def object_of_final(self) -> bytes:
        """Its bytes, once it is completed as its row says."""
        layout = self.ask(self.stored.of(FINAL))
        assert layout is not None
        key = self.names.key(FINAL, is_partial=False)
        if not layout.whole:
            assert layout.multipart is not None and layout.finished
            assert layout.reserved >= max(part.number for part in layout.parts)
            whole_name = self.names.object if self.store.part_objects else str
            parts = [SentPart(each.number, whole_name(each.name), each.size, each.receipt) for each in layout.parts]
            properties = ObjectProperties(FINAL, "", {"filename": b"x"})
            self.ask(self.store.complete(key, layout.multipart, properties, parts, True))
        assert self.store.objects[key].upload_id == FINAL
        assert self.store.objects[key].metadata == {"filename": b"x"}
        return self.store.objects[key].data


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# reading


def test_what_is_read_in_order_comes_with_one_request_and_regions_beside_each_other_with_one_each(
    world: World,
) -> None:
    upload_id = world.upload(TEN)
    reader = world.ask(world.objects.reader(upload_id))
    assert reader.size == 1000 and not world.store.sent["open"]
    assert b"".join(world.ask(reader.read(at, 100)) for at in range(0, 1000, 100)) == TEN
    assert world.ask(reader.read(990, 100)) == TEN[990:] and world.ask(reader.read(1000, 1)) == b""
    asked, opening = [], world.store.open

    def noted(key: str, start: int, size: int) -> Any:
        asked.append((start, size))
        return opening(key, start, size)

    world.store.open = noted  # type: ignore[method-assign]
    regions = [RegionWindow(reader, start, 250) for start in range(0, 1000, 250)]
    for start in range(0, 1000, 250):
        assert reader.reach(start + 250) is None
    found: dict[int, bytes] = {number: b"" for number in range(4)}
    for at in range(0, 250, 50):
        for number, region in enumerate(regions):
            found[number] += world.ask(region.read(at, 50))
    assert b"".join(found.values()) == TEN
    assert asked == [(0, 250), (250, 250), (500, 250), (750, 250)], "each ends where its region does"
    fed: list[bytes] = []
    world.ask(regions[1].scan(0, 250, fed.append))
    assert b"".join(fed) == TEN[250:500]
    world.ask(reader.close())
    with pytest.raises(ValueError, match="closed"):
        world.ask(reader.read(0, 1))


def test_nobody_who_reads_loads_all_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    partials = [world.upload(TEN[:100], concat="partial") for _ in range(2)]
    unfinished = world.upload(b"", whole=False)
    parts = [StoredPart(10 * each, 10, each + 1, f"p{each}", "") for each in range(4)]
    change = StoreChange(4, parts, Piece(40, 10, "piece", b"0123456789"), "m")
    assert world.ask(world.stored.commit(Commit(unfinished, 0, 0, 50, 0, 1000, segment=change)))
    for asks_for_all in ("of", "of_many"):
        monkeypatch.setattr(world.stored, asks_for_all, lambda _: fail(AssertionError("an upload may have thousands")))
    spool = ObjectSpool(world.objects.context, world.tools, pool=world.pool, budget=Budget(), url="s3://x")  # type: ignore[arg-type]
    assert world.ask(spool.read(unfinished, 45, 10)) == b"56789"
    with pytest.raises(NotReadable, match="tail"):
        world.ask(spool.read(unfinished, 35, 10))
    assert world.ask(spool.whole([unfinished, *partials])) == set(partials)
    assert world.ask(spool.read(partials[0], 95, 9)) == TEN[95:100]
    with pytest.raises(NotWhole):
        world.ask(spool.reader(unfinished))
    world.create_final(partials)
    world.store.conditional = False
    final = world.assembly([(each, 100) for each in partials])
    world.run(final)
    world.ask(final.discard())


def test_no_more_streams_rest_than_were_agreed_and_none_after_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_reader, "STREAMS", 3)
    opened: list[Any] = []
    opening = world.store.open

    def open_noted(*asked: Any) -> Any:
        def note(stream: Any) -> Any:
            read = stream.read
            stream.read = lambda: read().addCallback(lambda data: data)
            closing, stream.closed = stream.close, False
            stream.close = lambda: (setattr(stream, "closed", True), closing())
            opened.append(stream)
            return stream

        return opening(*asked).addCallback(note)

    world.store.open = open_noted  # type: ignore[method-assign]
    reader = world.ask(world.objects.reader(world.upload(TEN)))
    for start in range(0, 1000, 100):
        world.ask(reader.read(start + 1, 10))
        assert sum(not each.closed for each in opened) <= 3
    assert len(opened) == 10
    world.ask(reader.close())
    assert all(each.closed for each in opened)


def test_an_upload_that_is_not_whole_is_not_readable_and_one_without_data_not_there(world: World) -> None:
    upload_id = world.upload(TEN, whole=False)
    with pytest.raises(NotWhole):
        world.ask(world.objects.reader(upload_id))
    with pytest.raises(NotWhole):
        world.ask(world.objects.read_start((upload_id, 5)))
    with pytest.raises(FileNotFoundError):
        world.ask(world.objects.reader("0" * 32))
    world.make_whole(upload_id, TEN)
    assert world.ask(world.objects.read_start((upload_id, 5))) == TEN[:5]
    assert world.ask(world.objects.read_start((world.upload(b""), 5))) == b""


def test_a_read_that_fails_is_tried_once_more_where_it_was_and_a_failure_is_the_spools(world: World) -> None:
    reader = world.ask(world.objects.reader(world.upload(TEN)))
    assert world.ask(reader.read(0, 10)) == TEN[:10]
    world.store.fates.append(Fate.FAILS)
    assert world.ask(reader.read(500, 10)) == TEN[500:510]
    world.store.fates.extend([Fate.FAILS, Fate.FAILS])
    with pytest.raises(StoreFailed):
        world.ask(reader.read(700, 10))
    world.store.objects.clear()
    with pytest.raises(StoreFailed):
        world.ask(reader.read(900, 10))


def lost(world: World, logged: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """What was told of, and is counted."""
    told = [(each["upload"], each["key"]) for each in logged if each["log_level"] is LogLevel.error]
    assert len(told) == world.objects.context.lost.count
    return told


def test_an_object_that_has_vanished_is_told_of_once_by_whoever_reads_it(world: World) -> None:
    upload_id = world.upload(TEN)
    key = world.names.key(upload_id, is_partial=False)
    spool = ObjectSpool(world.objects.context, world.tools, pool=world.pool, budget=Budget(), url="s3://x")  # type: ignore[arg-type]
    reader = world.ask(world.objects.reader(upload_id))
    with capturedLogs() as logged:
        kept, opening = world.store.objects.pop(key), world.store.open
        for read in (reader.read(0, 10), spool.read(upload_id, 0, 5), spool.read_start((upload_id, 5))):
            with pytest.raises(StoreFailed):
                world.ask(read)
        assert lost(world, logged) == [(upload_id, key)]

        def once(*given: Any) -> Any:
            world.store.open = opening  # type: ignore[method-assign]
            return fail(Transient("and then it is gone"))

        another = world.upload(TEN)
        world.store.objects.pop(world.names.key(another, is_partial=False))
        world.store.open = once  # type: ignore[method-assign]
        with pytest.raises(StoreFailed):
            world.ask(spool.read_start((another, 5)))
        assert [each for each, _ in lost(world, logged)] == [upload_id, another]
        world.store.objects[key] = kept
        assert world.ask(reader.read(0, 10)) == TEN[:10], "it is back"


def test_what_is_gone_by_now_or_whose_record_cannot_be_read_is_no_loss(world: World) -> None:
    removed, unknown = world.upload(TEN), world.upload(TEN)
    readers = [world.ask(world.objects.reader(each)) for each in (removed, unknown)]
    world.store.objects.clear()
    world.ask(world.stored.end(removed, GoneReason.TERMINATED))
    with capturedLogs() as logged:
        with pytest.raises(StoreFailed):
            world.ask(readers[0].read(0, 10))
        tail_of = world.stored.tail_of
        world.stored.tail_of = lambda _: fail(CatalogUnavailable("away"))  # type: ignore[method-assign]
        with pytest.raises(StoreFailed):
            world.ask(readers[1].read(0, 10))
        assert lost(world, logged) == []
        world.stored.tail_of = tail_of  # type: ignore[method-assign]


def test_a_final_tells_of_a_partial_whose_object_has_vanished(world: World) -> None:
    for sizes in ((300, 600), (50, 60)):  # copied inside the store, and through here
        assembly, _ = world.final(*sizes)
        gone = assembly._sources[1][0]
        key = world.names.key(gone, is_partial=True)
        del world.store.objects[key]
        with capturedLogs() as logged:
            for _ in range(2):
                with pytest.raises(StoreFailed):
                    world.run(assembly)
                world.ask(assembly.discard())
        told = [(each["upload"], each["key"]) for each in logged if each["log_level"] is LogLevel.error]
        assert told == [(gone, key)]
        del world.stored.rows[FINAL]
    assert world.objects.context.lost.count == 2


def test_no_more_uploads_are_remembered_than_have_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resumable.spool.objects.errors.TOLD", 2)
    ids = [world.upload(TEN) for _ in range(3)]
    for each in (*ids, *ids[1:], ids[0]):
        world.ask(world.objects.context.lost.missed(each, "key"))
    assert world.objects.context.lost.count == 4, "the oldest is told of again"


def test_a_thread_reads_through_the_reactor_and_keeps_the_reader_open(world: World) -> None:
    calls: SimpleQueue[Any] = SimpleQueue()

    class Reactor:
        def callFromThread(self, call: Any, *given: Any) -> None:
            calls.put(lambda: call(*given))

    async def missed() -> None:
        raise AssertionError("it is there")

    upload_id = world.upload(TEN)
    key = world.names.key(upload_id, is_partial=False)
    reader = ObjectReader(world.store, key, 1000, world.pool, Reactor(), missed)  # type: ignore[arg-type]
    loan = RegionWindow(reader, 100, 50).lend()
    closed: list[None] = []
    reader.close().addCallback(closed.append)
    found: list[bytes] = []
    thread = Thread(target=lambda: found.append(loan.read(10, 20)))
    thread.start()
    calls.get()()  # in the reactor
    thread.join()
    assert found == [TEN[110:130]] and not closed
    loan.give_back()
    assert closed == [None]
    with pytest.raises(ValueError, match="closed"):
        reader.lend()


# plans


LIMITS = PartLimits(smallest_part=5, largest_part=40, parts=10_000, largest_object=1 << 30)


@given(
    st.lists(st.integers(0, 90), max_size=12),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.booleans(),
    st.integers(5, 30),
)
def test_a_plan_has_each_byte_once_in_parts_that_the_store_takes(
    sizes: list[int], multiple: int, equal: bool, inside: bool, part_size: int
) -> None:
    limits = PartLimits(5, 40, 10_000, 1 << 30, multiple_of=multiple, equal=equal)
    steps = plan_copies(sizes, limits, part_size, inside=inside)
    stretches = [each for step in steps for each in step.stretches]
    covered = [(each.source, at) for each in stretches for at in range(each.start, each.start + each.size)]
    assert covered == [(source, at) for source, size in enumerate(sizes) for at in range(size)]
    for step in steps[:-1]:
        assert 5 <= step.size <= 40 and step.size % multiple == 0
        if equal:
            assert step.size == steps[0].size
    for step in steps:
        assert step.size > 0
        assert not step.inside or (inside and len(step.stretches) == 1)
    if inside and not equal and multiple == 1 and all(size >= 5 for size in sizes):
        assert all(step.inside for step in steps), "nothing comes through here that needn't"


def test_a_plan_mends_what_is_too_small_with_as_few_bytes_as_can_be() -> None:
    steps = plan_copies([3, 30, 2], LIMITS, 8)
    assert [(step.size, step.inside) for step in steps] == [(5, False), (28, True), (2, False)]
    steps = plan_copies([100], LIMITS, 8)
    assert [step.size for step in steps] == [33, 33, 34] and all(step.inside for step in steps)


@given(st.lists(st.integers(0, 200), max_size=12), st.integers(1, 30))
def test_a_plan_for_a_store_that_copies_no_ranges_has_whole_sources_of_any_size(
    sizes: list[int], part_size: int
) -> None:
    limits = PartLimits(1, 200, 12, 1 << 30)
    steps = plan_copies(sizes, limits, part_size, ranges=False)
    assert [step.stretches for step in steps] == [
        (SourceStretch(source, 0, size),) for source, size in enumerate(sizes) if size
    ]
    assert all(step.inside for step in steps)


def test_without_ranges_all_comes_through_here_where_a_source_is_no_part() -> None:
    few = PartLimits(1, 40, 4, 1 << 30)
    for sizes, limits in (([30, 3, 30], LIMITS), ([30, 50], LIMITS), ([5] * 6, few), ([30, 50], few)):
        steps = plan_copies(sizes, limits, 10, ranges=False)
        assert sum(step.size for step in steps) == sum(sizes) and len(steps) <= limits.parts
        assert max(step.size for step in steps) <= 20
        inside = [step.stretches[0] for step in steps if step.inside]
        assert all(each.size == sizes[each.source] for each in inside)
    steps = plan_copies([30, 40], few, 10, ranges=False, start=20)
    assert [(step.size, step.inside) for step in steps] == [(10, False), (40, True)]


def test_a_plan_goes_on_from_where_a_store_has_refused_to_copy() -> None:
    steps = plan_copies([30, 30], LIMITS, 8, inside=False, start=20)
    assert [step.size for step in steps] == [8, 8, 8, 8, 8]
    assert steps[0].stretches[0].start == 20


def test_a_plan_of_many_small_sources_keeps_to_the_numbers_that_there_are() -> None:
    few = PartLimits(smallest_part=5, largest_part=100, parts=10, largest_object=1000)
    assert len(plan_copies([6] * 100, few, 8)) <= 10
    assert len(plan_copies([6] * 100, few, 8, inside=False, numbers=9)) <= 9
    with pytest.raises(ObjectTooLarge):
        plan_copies([600, 600], few, 8)


# finals


def test_a_final_of_large_partials_is_copied_inside_the_store(world: World) -> None:
    assembly, data = world.final(500, 300, 64, 10)
    world.run(assembly)
    assert world.commit(assembly)
    assert world.store.sent["copy_part"] == 3 and world.store.sent["write_part"] == 1
    assert world.object_of_final() == data
    assert world.scratch.used == 0 and not list(Path(world.scratch.directory).iterdir())


@pytest.mark.parametrize(
    "kind",
    [{}, {"equal": True}, {"part_objects": True, "copies_ranges": False}, {"numbered": False}, {"conditional": False}],
)
@pytest.mark.parametrize("sizes", [(), (0,), (100, 20), (70, 3, 100, 5, 5, 300), (30,) * 30, (256, 256, 256), (1000,)])
def test_a_final_of_any_partials_has_their_bytes_in_any_store(
    tmp_path: Path, kind: dict[str, Any], sizes: tuple[int, ...]
) -> None:
    world = World(tmp_path, **kind)
    assembly, data = world.final(*sizes)
    world.run(assembly)
    assert assembly.copied == assembly.length == len(data)
    assert world.commit(assembly)
    if data:
        assert world.object_of_final() == data


def test_a_store_that_copies_no_ranges_is_asked_for_whole_partials_however_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_plan, "COPIED", 128)
    limits = PartLimits(1, 1 << 20, 1000, 1 << 30)
    world = World(tmp_path, part_objects=True, copies_ranges=False, limits=limits)
    assembly, data = world.final(700, 10, 0, 300)
    world.run(assembly)
    assert world.store.sent == {"copy_part": 3}, "nothing is refused, and nothing comes through here"
    assert world.commit(assembly) and world.object_of_final() == data


def test_a_final_that_fits_one_part_is_one_put(world: World) -> None:
    assembly, data = world.final(100, 0, 50)
    world.run(assembly)
    assert world.store.sent == {"open": 2, "put": 1}
    assert world.commit(assembly) and world.object_of_final() == data
    assert assembly.segment is not None and assembly.segment.is_whole
    assert made_from(assembly.segment.made or {}).token.startswith("w-")


def test_an_earlier_assembly_s_object_is_not_taken_for_this_ones_and_a_lost_answer_is(world: World) -> None:
    assembly, data = world.final(100, 50)
    sources = assembly._sources
    world.store.fates_of["put"].append(Fate.UNHEARD)
    world.run(assembly)
    assert assembly.segment is not None and assembly.segment.made is not None, "the token told"
    again = world.assembly(sources)  # the commit never came
    world.run(again)
    assert again.segment is not None and again.segment.made is None and again.segment.parts
    assert world.commit(again)
    layout = world.ask(world.stored.of(FINAL))
    assert layout is not None and not layout.whole, "whoever completes it by claim may replace the other"
    assert sum(part.size for part in layout.parts) == len(data)


def test_what_the_store_does_not_copy_comes_through_here(world: World) -> None:
    assembly, data = world.final(300, 600)
    copy_part, refused = world.store.copy_part, []

    def refuse(*asked: Any) -> Any:
        if asked[5] > 0 or refused:  # the first source is copied, the second isn't
            refused.append(asked)
            return Deferred.fromCoroutine(_raise(Permanent("no right to read")))
        return copy_part(*asked)

    world.store.copy_part = refuse  # type: ignore[method-assign]
    world.ask(assembly.look())
    assembly._steps = list(plan_copies([300, 600], PartLimits(64, 300, 1000, 1 << 20), 256))
    while not assembly.complete:
        world.ask(assembly.copy(assembly.next_size(shared=False)))
    world.ask(assembly.name())
    assert refused and world.store.sent["write_part"] >= 1
    assert world.commit(assembly) and world.object_of_final() == data
    assert assembly.segment is not None
    numbers = [part.number for part in assembly.segment.parts]
    assert numbers == sorted(set(numbers)) and not {asked[2] for asked in refused} & set(numbers)


async def _raise(error: Exception) -> None:
    raise error


def test_a_copy_that_fails_is_asked_for_again_and_then_given_up_with_all_that_it_made(world: World) -> None:
    assembly, data = world.final(300, 600)
    world.store.fates_of["copy_part"].append(Fate.FAILS)
    world.run(assembly)
    world.ask(assembly.discard())
    assert world.store.unfinished == [] and assembly.segment is None and assembly.copied == 0
    world.store.fates_of["copy_part"].extend([Fate.FAILS] * 20)
    with pytest.raises(StoreFailed):
        world.run(assembly)
    world.ask(assembly.discard())
    world.store.fates_of.clear()
    world.run(assembly)
    assert world.commit(assembly) and world.object_of_final() == data


def test_the_loser_of_two_assemblies_takes_only_its_own_multipart_with_it(world: World) -> None:
    one, data = world.final(300, 600)
    two = world.assembly(one._sources)
    world.run(one)
    world.run(two)
    assert world.commit(one) and not world.commit(two)
    world.ask(two.discard())
    world.ask(one.discard())  # as it would be by mistake: the row names it
    assert world.object_of_final() == data
    assert world.store.unfinished == []


def test_partials_that_are_not_whole_yet_are_waited_for(world: World) -> None:
    partial = world.upload(TEN, concat="partial", whole=False)
    world.create_final([partial])
    assembly = world.assembly([(partial, 1000)])
    with pytest.raises(NotWhole):
        world.run(assembly)

    def completed(upload_id: str, seconds: float) -> Deferred[bool]:
        assert seconds == 5.0
        world.make_whole(upload_id, TEN)
        return succeed(True)

    world.whole = completed
    world.run(assembly)
    assert world.commit(assembly) and world.object_of_final() == TEN
    with pytest.raises(NotReadable, match="what it was"):
        world.run(world.assembly([(partial, 999)]))


def test_a_frozen_copier_finds_no_partial_any_more_and_its_commit_does_not_match(world: World) -> None:
    frozen, data = world.final(300, 600)
    other = world.assembly(frozen._sources)
    world.ask(frozen.look())
    world.run(other)
    assert world.commit(other)
    world.ask(world.store.remove([world.names.key(each, is_partial=True) for each, _ in frozen._sources]))
    with pytest.raises(StoreFailed):
        world.ask(frozen.copy(frozen.next_size(shared=False)))
    world.ask(frozen.discard())
    assert world.object_of_final() == data
