"""The sweepers and the journal; and remotes that are directories."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, succeed
from zope.interface.verify import verifyObject

from resumable.model.errors import CatalogUnavailable
from resumable.model.replica import IReplication
from resumable.remotes import errors
from resumable.remotes.file.filesystem import RemoteDirectory
from resumable.remotes.file.remote import FileRemote
from resumable.remotes.interfaces import IPartJournal
from resumable.remotes.memory.remote import Fault, OpenObject
from resumable.replication.journal import CatalogJournal
from resumable.replication.sweeper import DAY, LocalPolicy, LocalSweeper, StoreSweeper
from tests.replication.rig import EPOCH, parts, pattern


def test_it_is_what_the_use_cases_want(rig):
    assert verifyObject(IReplication, rig.replication)
    assert rig.replication.acknowledges is False


# -- local data


def local(rig, policy, lacking=lambda: 0, age=None, delay=0.0):
    async def reclaim():
        ids = await rig.catalog.removable(100)
        await rig.spool.remove(ids)
        await rig.catalog.removed(ids)

    return LocalSweeper(
        rig.catalog.replicas, policy, wall=rig.wall, reclaim=reclaim, lacking=lacking, age=age, delay=delay
    )


def kept(rig, *upload_ids):
    return [rig.ask(rig.spool.size(each)) is not None for each in upload_ids]


def test_kept_for_ever(rig):
    upload_id = rig.upload(50)
    rig.settle([upload_id])
    rig.advance(1e4)
    assert rig.ask(local(rig, LocalPolicy.KEEP, lambda: 1, 1.0).sweep()) == 0
    assert kept(rig, upload_id) == [True]


def test_dropped_at_once_when_every_replica_is_stored_or_given_up(make):
    rig = make({"a": parts(), "b": parts()}, specs={"b": {"required": False}})
    rig.remotes["b"].faults.add(Fault("finalize_upload", errors.Throttled("later", 50.0)))
    upload_id = rig.upload(50)
    rig.settle([upload_id])
    assert rig.ask(local(rig, LocalPolicy.DROP).sweep()) == 0, "b still needs it"
    rig.settle([upload_id], "b")
    rig.advance(1)
    assert rig.ask(local(rig, LocalPolicy.DROP).sweep()) == 1
    assert kept(rig, upload_id) == [False]
    assert rig.row(upload_id).dropped_at is not None


def test_reclaimed_when_old(rig):
    old = rig.upload(50)
    rig.settle([old])
    rig.advance(1000)
    young = rig.upload(60)
    rig.settle([young])
    assert rig.ask(local(rig, LocalPolicy.RECLAIM, age=500.0).sweep()) == 1
    assert kept(rig, old, young) == [False, True]


def test_reclaimed_when_space_is_needed_oldest_first_and_no_more_than_that(rig):
    uploads = []
    for number in range(50):
        uploads.append(rig.upload(50, seed=number))
        rig.advance(1)
    left = [2]

    def lacking():
        left[0] -= 1
        return left[0] >= 0

    assert rig.ask(local(rig, LocalPolicy.RECLAIM, lacking).sweep()) == 32
    assert kept(rig, *uploads) == [False] * 32 + [True] * 18


def test_what_is_given_up_and_goes_later_counts_as_room(rig):
    for number in range(50):
        rig.upload(50, seed=number)
        rig.advance(1)
    lacking = [17 * 50]
    sweeper = local(rig, LocalPolicy.RECLAIM, lambda: lacking[0], delay=60.0)
    assert rig.ask(sweeper.sweep()) == 32
    rig.advance(59)
    assert rig.ask(sweeper.sweep()) == 0, "nothing is off the disk yet, but enough will be"
    lacking[0] = 40 * 50
    assert rig.ask(sweeper.sweep()) == 16, "more lacks than what is on its way"
    rig.advance(1)
    assert rig.ask(sweeper.sweep()) == 2, "it went, and made no room"


def test_what_isnt_stored_is_never_given_up(rig):
    rig.remotes["a"].faults.add(Fault("write_chunk", errors.Permanent("never"), times=None))
    parked = rig.upload(50)
    sending = rig.create(50)
    rig.advance(100)
    assert rig.ask(local(rig, LocalPolicy.DROP).sweep()) == 0
    assert kept(rig, parked, sending) == [True, True]


# -- the sweeper


def leftover(rig, key, handle, age=2 * DAY):
    rig.stores["a"].unfinished[handle] = OpenObject(key, "", EPOCH + rig.clock.seconds() - age)


def sweeper(rig, **options):
    return StoreSweeper("a", rig.remotes["a"], rig.catalog.replicas, lambda: rig.wall(), **options)


def test_leftovers_of_ours_are_removed_and_nothing_else(make):
    rig = make()
    rig.clock.advance(0)
    stored, sending = rig.upload(350), rig.create(1000)
    rig.append(sending, pattern(250))
    rig.settle([stored])
    rig.advance(1)
    (own,) = rig.stores["a"].unfinished.values()
    own.started_at = 0.0
    leftover(rig, stored, "x1")
    leftover(rig, sending, "x2")
    leftover(rig, sending, "x3", age=DAY / 2)
    leftover(rig, "not/ours", "x4")
    dry = rig.ask(sweeper(rig, dry_run=True).sweep())
    assert {"x1", "x2", "x3", "x4"} < set(rig.stores["a"].unfinished)
    swept = rig.ask(sweeper(rig).sweep())
    assert swept == dry
    assert (swept.discarded, swept.young, swept.in_use, swept.foreign) == (2, 1, 1, 1)
    assert not {"x1", "x2"} & set(rig.stores["a"].unfinished)
    rig.append(sending, pattern(750, 2))
    rig.settle([sending])


def test_a_sweep_is_bounded_and_the_next_goes_on(rig):
    for number in range(350):
        leftover(rig, f"other/{number:04}", f"{number:04}")
    one = sweeper(rig, most=200)
    assert [rig.ask(one.sweep()).foreign for _ in range(4)] == [200, 150, 200, 150]


# -- the journal


class Slow:
    """A catalog that answers when it is told to."""

    def __init__(self):
        self.saved = []
        self.loads = 0

    def save_journal(self, upload_id, remote, value):
        self.saved.append((upload_id, remote, value, Deferred()))
        return self.saved[-1][3]

    def load_journal(self, upload_id, remote):
        self.loads += 1
        return succeed({"n": [-1]})


def now(deferred):
    found = []
    deferred.addBoth(found.append)
    return found[0]


def test_what_was_saved_is_loaded_without_asking_as_a_value_of_its_own():
    slow = Slow()
    journal = CatalogJournal(slow, "a")
    assert verifyObject(IPartJournal, journal)
    value = {"n": [1]}
    saving = journal.save("u", value)
    value["n"].append(2)
    slow.saved[0][3].callback(None)
    assert saving.called
    loaded = now(journal.load("u"))
    assert loaded == {"n": [1]}
    loaded["n"].append(3)
    assert now(journal.load("u")) == {"n": [1]}
    assert slow.saved[0][:3] == ("u", "a", {"n": [1]})
    assert slow.loads == 0


def test_what_may_not_have_been_saved_is_asked_for():
    slow = Slow()
    journal = CatalogJournal(slow, "a")
    first = journal.save("u", {"n": [1]})
    slow.saved[0][3].callback(None)
    second = journal.save("u", {"n": [2]})
    slow.saved[1][3].errback(CatalogUnavailable("full"))
    assert now(second).check(CatalogUnavailable)
    assert now(first) is None
    assert now(journal.load("u")) == {"n": [-1]}
    assert slow.loads == 1
    now(journal.load("u"))
    assert slow.loads == 1


def test_a_load_beside_a_save_is_not_remembered():
    slow = Slow()
    journal = CatalogJournal(slow, "a")
    journal.save("u", {"n": [2]})
    assert now(journal.load("u")) == {"n": [-1]}
    slow.saved[0][3].callback(None)
    assert now(journal.load("u")) == {"n": [2]}


def test_it_remembers_so_many_and_no_more():
    slow = Slow()
    journal = CatalogJournal(slow, "a", kept=3)
    for number in range(5):
        journal.save(str(number), {"n": [number]})
        slow.saved[-1][3].callback(None)
    assert [now(journal.load(str(number)))["n"] for number in (2, 3, 4, 0)] == [[2], [3], [4], [-1]]
    assert slow.loads == 1


# -- a directory


@pytest.mark.parametrize("size", [0, 50, 350])
def test_a_directory_is_a_remote_too(make, size):
    def make_file(rig, name, journal):
        rig.disk.make_directory("/nas") if rig.runs == 1 else None
        return FileRemote(RemoteDirectory(rig.disk, "/nas"), journal, rig.pool, rig.wall)

    rig = make({"a": make_file})
    upload_id = rig.create(size)
    if size:
        rig.append(upload_id, pattern(size)[: size // 2])
        rig.advance(1)
        rig.kill().start()
        rig.append(upload_id, pattern(size)[size // 2 :])
    rig.settle([upload_id])
    fd = rig.disk.open(f"/nas/{upload_id}", read_only=True)
    assert rig.disk.read(fd, size + 1, 0) == rig.data[upload_id]
