"""What every store of segments promises of removing: what goes, when, and what stays."""

from __future__ import annotations

import errno
import os

import pytest
from twisted.internet.defer import Deferred

from resumable.model.errors import CatalogUnavailable
from resumable.model.segments import REMOVED_AFTER
from resumable.model.upload import GoneReason
from resumable.testing.memory_catalog import Fate
from tests.spool.segment_bench import ALL, ID, OTHER, PIECES


class Stuck:
    """A disk that can't remove this file."""

    def __init__(self, disk, path):
        self._disk, self._path = disk, path

    def __getattr__(self, name):
        return getattr(self._disk, name)

    def unlink(self, path, within=None):
        if path == self._path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return self._disk.unlink(path, within)


class RemovalContract:
    """``bench``: a fixture, a bench of segment_bench."""

    def spread(self, bench):
        """An upload over four segments of two workers."""
        engines = [bench.engine("w1"), bench.engine("w2")]
        bench.result(engines[0].create(length=100))
        for at, piece in enumerate(PIECES):
            bench.result(engines[at % 2].small(piece))
        return engines[0]

    def test_nothing_is_taken_for_removed_while_the_marker_is_not_seen(self, bench):
        engine = self.spread(bench)
        bench.result(engine.create(OTHER, length=5, data=b"hello"))
        before = bench.files(engine.names.segments)
        engine.disk.rename(f"{engine.names.root}/.resumable/marker", f"{engine.names.root}/elsewhere")
        with pytest.raises(FileNotFoundError):
            bench.result(engine.spool.remove([ID, OTHER]))
        assert bench.files(engine.names.segments) == before and bench.file(engine.spool.path(OTHER)) == b"hello"

    def test_an_upload_whose_segment_cannot_be_removed_keeps_no_other(self, bench):
        engine = self.spread(bench)
        bench.result(engine.create(OTHER, length=5, data=b"hello"))
        first, *others = bench.files(engine.names.segments)
        disk, spool = engine.disk, engine.spool
        spool._disk = Stuck(disk, first)
        stuck = bench.result(spool.remove([ID, OTHER]))
        assert list(stuck) == [ID] and others
        assert bench.files(engine.names.segments) == [first] and bench.file(spool.path(OTHER)) is None
        spool._disk = disk
        assert bench.result(spool.remove([ID])) == {} and bench.files(engine.names.segments) == []

    def test_a_file_that_cannot_be_removed_keeps_no_other(self, bench):
        engine, other = bench.engine("w1"), bench.engine("w2")
        for each in (engine, other):
            each.context.listeners.joinable.clear()
        bench.result(engine.create(length=len(ALL)))
        bench.result(engine.small(ALL[:5]))
        bench.result(other.small(ALL[5:]))
        bench.result(engine.joined())
        bench.pass_time(REMOVED_AFTER + 1)
        stuck = bench.files(engine.names.segments)[0]
        assert len(bench.files(engine.names.segments)) > 1
        disk, names = engine.disk, engine.names
        names.disk = Stuck(disk, stuck)
        bench.result(engine.sweeper.sweep_discarded())
        assert bench.files(names.segments) == [stuck]
        names.disk = disk
        bench.result(engine.sweeper.sweep_discarded())
        assert bench.files(names.segments) == []

    def test_removing_takes_the_file_and_all_segments(self, bench):
        engine = self.spread(bench)
        bench.result(engine.create(OTHER, length=5, data=b"hello"))
        bench.result(engine.spool.remove([ID, OTHER, "c" * 32]))
        assert bench.files(engine.names.segments) == [] and bench.file(engine.spool.path(OTHER)) is None

    def test_the_bytes_of_a_creation_that_failed_stay_as_its_commit_may_land(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=5, data=b"hello"))
        bench.result(engine.spool.discard(ID))
        assert bench.file(engine.spool.path(ID)) == b"hello"

    def test_a_file_of_an_upload_that_went_while_it_was_joined_is_removed(self, bench):
        engine = self.spread(bench)
        engine.context.listeners.joinable.clear()
        bench.result(engine.small(b"." * 73))
        made_whole = engine.catalog.made_whole

        def gone_before(upload_id: str) -> Deferred[bool]:
            engine.catalog.end(upload_id, GoneReason.TERMINATED)
            engine.catalog.data_removed([upload_id])
            return made_whole(upload_id)

        engine.catalog.made_whole = gone_before
        bench.result(engine.joined())
        assert bench.file(engine.spool.path(ID)) is None and engine.joiner.joined == 0

    def test_old_files_without_a_row_are_swept_and_no_others(self, bench):
        engine = self.spread(bench)
        names = engine.names
        folder = names.folder_of(engine.catalog.rows[ID].segments[0].name)
        stray = [
            f"{folder}/{ID}.0-dead-1",
            f"{names.finals}/{ID}-dead-1",
            f"{names.placing}/{OTHER}",
            names.upload_path("c" * 32),
        ]
        young = [f"{folder}/{ID}.0-young-1", names.upload_path("d" * 32)]
        others = [f"{names.root}/notes.txt", names.upload_path(ID)]  # an id with data: its join replaces it
        for path in stray + young + others:
            bench.write(path, b"x")
        kept = [names.segment_path(each.name) for each in engine.catalog.rows[ID].segments]
        for path in stray + others + kept:
            bench.age(path, 90_000)
        bench.result(engine.sweeper.sweep_unknown())
        assert [path for path in stray if bench.file(path) is not None] == []
        assert all(bench.file(path) is not None for path in young + others + kept)
        assert engine.sweeper.removed == len(stray)

    def test_what_comes_late_to_a_removed_upload_goes_a_day_later(self, bench):
        """Its segments go after a minute. What an append or a join makes after that, whose worker then dies, is old
        after a day."""
        engine, late = self.spread(bench), bench.engine("w9")
        engine.context.listeners.joinable.clear()
        bench.result(engine.small(b"." * 73))
        layout = bench.result(engine.catalog.of(ID))
        bench.result(engine.create(OTHER, length=100))
        bench.result(engine.small(b"0123", OTHER))
        append = bench.result(late.begin(OTHER))
        bench.result(append.open())
        for upload_id in (ID, OTHER):
            engine.catalog.end(upload_id, GoneReason.TERMINATED)
        assert bench.result(engine.catalog.removable(9)) == [], "others may still read it"
        copy = late.spool.joining(layout)
        bench.result(copy.look())
        while not copy.complete:
            bench.result(copy.copy(copy.next_size(False)))
        bench.pass_time(REMOVED_AFTER)
        gone = bench.result(engine.catalog.removable(9))
        assert sorted(gone) == [ID, OTHER] and bench.result(engine.spool.remove(gone)) == {}
        engine.catalog.data_removed(gone)
        assert [path for path in bench.files(engine.names.segments) if "-w9-" not in path] == []
        bench.result(copy.name())
        append.sink.write(b"late")
        bench.result(append.sink.sync())
        left = [*bench.files(engine.names.segments), engine.spool.path(ID)]
        assert len(left) == 2 and all(bench.file(path) for path in left)
        for seconds, found in ((86_000, left), (1000, [])):
            for path in left:
                bench.age(path, seconds)
            bench.result(engine.sweeper.sweep_unknown())
            assert [path for path in left if bench.file(path) is not None] == found
        bench.result(append.close())

    def test_what_a_crash_has_left_of_an_id_that_a_hook_gave_is_swept(self, bench):
        engine = bench.engine()
        engine.catalog.fates.append(Fate.FAILS)
        with pytest.raises(CatalogUnavailable):
            bench.result(engine.create("report-2026_final", length=5, data=b"hello"))
        (left,) = bench.files(engine.names.segments)
        bench.write(f"{engine.names.root}/README", b"an operator's")
        for path in (left, f"{engine.names.root}/README"):
            bench.age(path, 90_000)
        bench.result(engine.sweeper.sweep_unknown())
        assert bench.files(engine.names.segments) == []
        assert bench.file(f"{engine.names.root}/README") == b"an operator's"

    def test_what_is_left_of_a_look_at_the_clock_is_swept(self, bench):
        engine = bench.engine()
        unlink, engine.disk.unlink = engine.disk.unlink, lambda path: False  # as if it had been killed before
        bench.result(engine.pool.run(engine.names.now))
        engine.disk.unlink = unlink
        (left,) = bench.files(engine.names.finals)
        bench.age(left, 90_000)
        bench.result(engine.sweeper.sweep_unknown())
        assert bench.file(left) is None
