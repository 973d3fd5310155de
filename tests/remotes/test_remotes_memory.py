"""Remotes in memory: the contract, and the faults that tests of others lean on."""

from __future__ import annotations

from random import Random

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from resumable.model.keys import parse
from resumable.remotes import urls
from resumable.remotes.interfaces import Conflict, Permanent, Throttled, Transient
from resumable.remotes.journals import MemoryJournal
from resumable.remotes.memory.parts import MemoryPartRemote, MemoryWholeRemote
from resumable.remotes.memory.remote import Fault, MemoryBucket, MemoryObject, MemoryRemote
from resumable.remotes.plan import PartLimits
from resumable.remotes.regions import BytesRegion
from resumable.testing.contract import RemoteContract

ID = "0" * 31 + "1"


class InMemory(RemoteContract):
    def setUp(self):
        self.clock = Clock()
        self.objects = MemoryBucket()
        super().setUp()

    def make_remote(self, journal):
        return MemoryRemote(self.objects, journal, self.clock)

    def read_object(self, key):
        return self.objects.objects[key].data if key in self.objects.objects else None

    def put_foreign(self, key, data):
        self.objects.objects[key] = MemoryObject(data)

    def settle(self):
        self.clock.advance(0)


class TestMemoryRemote(InMemory, SynchronousTestCase):
    """Chunks in order."""


class TestMemoryPartRemote(InMemory, SynchronousTestCase):
    """Parts in any order."""

    def make_remote(self, journal):
        return MemoryPartRemote(self.objects, journal, self.clock, part_size=self.chunk_size, limits=PartLimits(1))


class TestMemoryWholeRemote(InMemory, SynchronousTestCase):
    """Small objects at once."""

    def make_remote(self, journal):
        return MemoryWholeRemote(self.objects, journal, self.clock, part_size=self.chunk_size, limits=PartLimits(1))


class TestFaults(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.remote = MemoryRemote(MemoryBucket(), MemoryJournal(), self.clock)
        self.ask(self.remote.initiate_upload(ID, 10, {}))

    def ask(self, answer):
        self.clock.advance(0)
        return self.successResultOf(answer)

    def refusal(self, answer, kind):
        self.clock.advance(0)
        return self.failureResultOf(answer, kind).value

    def write(self):
        return self.remote.write_chunk(ID, 0, BytesRegion(b"0123456789"), 10)

    def progress(self):
        return self.ask(self.remote.get_upload_progress(ID))

    def test_an_error_strikes_once_and_nothing_is_written(self):
        self.remote.faults.add(Fault("write_chunk", Throttled("slow down", 3.0)))
        assert self.refusal(self.write(), Throttled).retry_after == 3.0
        assert self.progress() == 0
        self.ask(self.write())
        assert self.remote.faults.struck == 1

    def test_it_strikes_the_calls_that_it_is_meant_for(self):
        self.remote.faults.add(Fault("write_chunk", Transient("x"), upload_id=ID, skip=1, times=2))
        self.remote.faults.add(Fault("write_chunk", Permanent("not mine"), upload_id="another", times=None))
        self.ask(self.write())
        self.refusal(self.write(), Transient)
        self.refusal(self.write(), Transient)
        self.ask(self.write())

    def test_it_may_strike_every_operation_for_ever(self):
        self.remote.faults.add(Fault("*", Transient("down"), times=None))
        for _ in range(3):
            self.refusal(self.write(), Transient)
            self.refusal(self.remote.abort_upload(ID), Transient)
        self.remote.faults.clear()
        self.ask(self.write())

    def test_a_delay_passes_on_the_clock(self):
        self.remote.faults.add(Fault("write_chunk", delay=5.0))
        answer = self.write()
        self.clock.advance(4.9)
        self.assertNoResult(answer)
        self.clock.advance(0.2)
        self.ask(answer)

    def test_a_lost_answer_has_its_effect(self):
        self.remote.faults.add(Fault("write_chunk", Transient("reset"), lost=True))
        self.refusal(self.write(), Transient)
        assert self.progress() == 10

    def test_a_lost_answer_of_finalising_is_made_good(self):
        self.ask(self.write())
        self.remote.faults.add(Fault("finalize_upload", Transient("reset"), lost=True))
        self.refusal(self.remote.finalize_upload(ID), Transient)
        assert self.ask(self.remote.finalize_upload(ID)).size == 10
        assert list(self.remote.store.objects) == [ID]

    def test_a_write_may_be_partial(self):
        self.remote.faults.add(Fault("write_chunk", Transient("reset"), keep=4))
        self.refusal(self.write(), Transient)
        assert self.progress() == 4
        self.ask(self.write())
        assert self.progress() == 10

    def test_a_part_is_there_as_a_whole_or_not_at_all(self):
        self.remote = MemoryPartRemote(MemoryBucket(), MemoryJournal(), self.clock, part_size=10, limits=PartLimits(1))
        self.ask(self.remote.initiate_upload(ID, 10, {}))
        self.remote.faults.add(Fault("write_chunk", Transient("reset"), keep=4))
        self.refusal(self.write(), Transient)
        assert self.ask(self.remote.confirmed_parts(ID)) == []
        assert self.progress() == 0

    def test_a_silent_store_answers_only_to_a_cancel(self):
        self.remote.faults.add(Fault("write_chunk", silent=True))
        answer = self.write()
        self.clock.advance(1e9)
        self.assertNoResult(answer)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.ask(self.write())

    def test_calls_are_remembered(self):
        self.ask(self.write())
        assert self.remote.calls == [("initiate_upload", ID), ("write_chunk", ID)]

    def test_every_call_takes_its_latency(self):
        self.remote.latency = 1.0
        answer = self.remote.probe()
        self.clock.advance(0.5)
        self.assertNoResult(answer)
        self.clock.advance(0.5)
        self.successResultOf(answer)


class TestOverwriting(SynchronousTestCase):
    def store(self, replace):
        clock, store = Clock(), MemoryBucket()
        remote = MemoryRemote(store, MemoryJournal(), clock, template=parse("{metadata[filename]}"), replace=replace)
        store.objects["a"] = MemoryObject(b"theirs")
        answers = [
            remote.initiate_upload(ID, 1, {"filename": b"a"}),
            remote.write_chunk(ID, 0, BytesRegion(b"x"), 1),
            remote.finalize_upload(ID),
        ]
        clock.advance(0)
        return store, answers[-1]

    def test_a_foreign_object_stays_unless_it_may_be_replaced(self):
        store, answer = self.store(False)
        self.failureResultOf(answer, Conflict)
        assert store.objects["a"].data == b"theirs"

    def test_a_foreign_object_is_replaced_when_that_was_asked_for(self):
        store, answer = self.store(True)
        self.successResultOf(answer)
        assert store.objects["a"] == MemoryObject(b"x", ID)


def test_a_size_that_the_store_does_not_take_is_refused_for_good():
    clock = Clock()
    remote = MemoryRemote(MemoryBucket(), MemoryJournal(), clock, largest=10)
    answer = remote.initiate_upload(ID, 11, {})
    failures = []
    answer.addErrback(failures.append)
    clock.advance(0)
    assert failures[0].check(Permanent) and not failures[0].value.may_retry


@pytest.mark.parametrize(("url", "kind"), [("memory://", MemoryRemote), ("memory://x?parts=yes", MemoryPartRemote)])
def test_it_is_made_from_a_url(url, kind):
    means = urls.BackendServices(Clock(), None, MemoryJournal(), None, lambda: 0.0, Random(1))
    assert type(urls.make(urls.parse(url), means)) is kind
    with pytest.raises(urls.BadRemote, match="yes or no"):
        urls.parse("memory://?parts=some")
