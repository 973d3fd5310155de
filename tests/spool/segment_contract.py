"""What every store of segments promises to the use cases and to the other workers on the same directory."""

from __future__ import annotations

import hashlib
import os

import pytest
from twisted.internet.defer import Deferred

from resumable.model.errors import StartupError
from resumable.model.segments import REMOVED_AFTER
from resumable.model.upload import WHOLE, Upload
from resumable.spool.datafile import NotReadable
from resumable.spool.direct import Ending
from resumable.spool.segments.segment_reader import ClampedReader, PiecesReader
from resumable.uploads import joining
from tests.spool.segment_bench import ALL, ID, MIB, OTHER, PIECES
from tests.spool.segment_removal import RemovalContract


class SegmentContract(RemovalContract):
    """``bench``: a fixture, a bench of segment_bench."""

    # -- appending

    def test_a_whole_upload_in_one_small_request_is_the_file_under_its_id(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=5, data=b"hello"))
        assert bench.file(engine.spool.path(ID)) == b"hello"
        assert engine.catalog.rows[ID].whole and not bench.files(engine.names.segments)
        assert bench.result(engine.content()) == b"hello"

    def test_so_is_an_empty_one(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=0, data=b""))
        assert bench.file(engine.spool.path(ID)) == b"" == bench.result(engine.content())

    def test_one_with_an_id_that_a_hook_gave_gets_its_file_when_it_is_joined(self, bench):
        engine = bench.engine()
        wake, engine.context.listeners.joinable[:] = engine.context.listeners.joinable[0], []
        for upload_id, data in (("report-2026_final", b"hello"), ("nothing-in-it-2026", b"")):
            bench.result(engine.create(upload_id, length=len(data), data=data))
            assert bench.file(engine.spool.path(upload_id)) is None
            assert bench.result(engine.content(upload_id)) == data
            wake(upload_id)
            bench.result(engine.joiner._tasks.ended())
            assert engine.catalog.rows[upload_id].whole and bench.file(engine.spool.path(upload_id)) == data
        assert engine.joiner.linked == 1

    def test_where_something_has_that_name_the_bytes_go_to_a_segment_and_it_stays(self, bench):
        engine = bench.engine()
        engine.context.listeners.joinable.clear()
        bench.write(engine.spool.path(ID), b"another's")
        bench.result(engine.create(length=5, data=b"hello"))
        assert bench.file(engine.spool.path(ID)) == b"another's"
        assert not engine.catalog.rows[ID].whole and bench.result(engine.content()) == b"hello"

    def test_small_appends_of_one_worker_that_follow_each_other_share_a_segment(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=100))
        for piece in PIECES:
            bench.result(engine.small(piece))
        assert len(engine.catalog.rows[ID].segments) == 1 and len(bench.files(engine.names.segments)) == 1
        assert bench.result(engine.content()) == ALL

    def test_so_do_long_ones_and_both_kinds(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=100))
        bench.result(engine.long(*PIECES[:2]))
        bench.result(engine.small(PIECES[2]))
        bench.result(engine.long(PIECES[3]))
        assert len(bench.files(engine.names.segments)) == 1
        assert bench.result(engine.content()) == ALL

    def test_workers_that_take_turns_write_to_segments_of_their_own(self, bench):
        engines = [bench.engine("w1"), bench.engine("w2")]
        bench.result(engines[0].create(length=100))
        for at, piece in enumerate(PIECES):
            bench.result(engines[at % 2].small(piece))
        segments = engines[0].catalog.rows[ID].segments
        assert [each.start for each in segments] == [0, 7, 10, 26]
        assert all(f"-w{at % 2 + 1}-" in segment.name for at, segment in enumerate(segments))
        assert [bench.result(each.content()) for each in engines] == [ALL, ALL]

    def test_a_segment_that_has_uncommitted_bytes_behind_is_not_gone_on_with(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=100))
        append = bench.result(engine.begin())
        bench.result(append.open())
        bench.result(append.write(b"0123"))
        append.sink.write(b"lost")
        bench.result(append.sink.sync())
        bench.result(append.close())
        bench.result(engine.small(b"4567"))
        assert len(engine.catalog.rows[ID].segments) == 2
        assert bench.file(engine.names.segment_path(engine.catalog.rows[ID].segments[0].name)) == b"0123lost"
        assert bench.result(engine.content()) == b"01234567"

    def test_an_append_that_recorded_nothing_leaves_no_file(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=100))
        append = bench.result(engine.begin())
        bench.result(append.open())
        append.sink.write(b"0123")
        bench.result(append.sink.sync())
        bench.result(append.close())
        assert bench.files(engine.names.segments) == []

    def test_a_segment_that_is_not_as_it_was_left_is_not_gone_on_with(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=100))
        for change in (lambda path: engine.disk.unlink(path), lambda path: bench.write(path, b"longer than it was")):
            bench.result(engine.small(b"0123"))
            change(engine.names.segment_path(engine.catalog.rows[ID].segments[-1].name))
            bench.result(engine.small(b"4567"))
        assert [each.size for each in engine.catalog.rows[ID].segments] == [4, 8, 4]

    def test_the_digest_is_fed_by_the_sink_from_the_appends_own_segment(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=100))
        bench.result(engine.small(b"0123"))
        append = bench.result(engine.begin())
        bench.result(append.open())
        append.sink.write(b"4567" * 1000)
        bench.result(append.sink.sync())
        digest = hashlib.sha256()
        bench.result(append.sink.feed(4, 4004, digest))
        assert digest.digest() == hashlib.sha256(b"4567" * 1000).digest()
        with pytest.raises(NotReadable):
            bench.result(append.sink.feed(4, 5000, digest))
        bench.result(append.close())

    def test_bytes_that_come_from_a_socket_by_themselves_land_where_they_belong(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=100))
        bench.result(engine.small(b"0123"))
        append = bench.result(engine.begin())
        bench.result(append.open())
        end, other = os.pipe2(os.O_NONBLOCK)
        os.write(other, b"x" * 200_000)
        data = b""
        ending = append.sink.receive(end, 60_000, lambda size: None)
        if ending is not None:
            assert bench.result(ending) in tuple(Ending)
            data = b"x" * (append.sink.received - 4)
        append.sink.write(b"456")
        bench.result(append.write(b"789", last=True))
        bench.result(append.close())
        os.close(end)
        os.close(other)
        assert bench.result(engine.content()) == b"0123" + data + b"456789"
        assert len(bench.files(engine.names.segments)) == 1

    # -- reading

    @pytest.mark.parametrize("start", [0, 6, 7, 8, 10, 26, 27, 40])
    def test_a_reader_reads_over_the_ends_of_segments(self, bench, start):
        engine = self.spread(bench)
        reader = bench.result(engine.spool.reader(ID))
        assert isinstance(reader, PiecesReader) and reader.size == len(ALL)
        for size in (0, 1, 3, 20, 100):
            assert bench.result(reader.read(start, size)) == ALL[start : start + size]
            assert bench.result(engine.spool.read(ID, start, size)) == ALL[start : start + size]
        fed = bytearray()
        assert bench.result(reader.scan(start, 100, fed.extend)) == len(fed)
        assert fed == ALL[start:]
        loan = reader.lend()
        assert loan.descriptor is None and loan.read(start, 100) == ALL[start:]
        loan.give_back()
        bench.result(reader.close())
        with pytest.raises(ValueError):
            bench.result(reader.read(0, 1))

    def test_no_reader_sees_a_byte_that_is_not_committed(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=100))
        append = bench.result(engine.begin())
        bench.result(append.open())
        bench.result(append.write(b"0123"))
        append.sink.write(b"more")
        bench.result(append.sink.sync())
        reader = bench.result(engine.spool.reader(ID))
        assert isinstance(reader, ClampedReader)
        assert (bench.result(reader.read(2, 9)), reader.size) == (b"23", 4)
        fed = bytearray()
        assert bench.result(reader.scan(1, 9, fed.extend)) == 3 and fed == b"123"
        assert bench.result(engine.spool.read(ID, 0, 9)) == b"0123"
        assert bench.result(engine.spool.read_start((ID, 9))) == b"0123"
        bench.result(reader.close())
        bench.result(append.close())

    def test_a_reader_reaches_bytes_that_are_committed_after_it_was_opened(self, bench):
        engines = [bench.engine("w1"), bench.engine("w2")]
        bench.result(engines[0].create(length=100))
        bench.result(engines[0].small(b"0123"))
        reader = bench.result(engines[1].spool.reader(ID))
        assert reader.reach(4) is None
        bench.result(engines[0].small(b"4567"))
        bench.result(reader.reach(6))
        assert isinstance(reader, ClampedReader) and reader.size == 8
        assert bench.result(reader.read(2, 9)) == b"234567"
        bench.result(engines[1].small(b"89"))
        bench.result(reader.reach(10))
        assert bench.result(reader.read(2, 9)) == b"23456789"
        loan = reader.lend()
        assert loan.read(6, 9) == b"6789"
        loan.give_back()
        bench.result(engines[0].small(b"ab"))
        bench.result(reader.reach(12))
        assert bench.result(reader.read(9, 9)) == b"9ab"
        with pytest.raises(NotReadable):
            bench.result(reader.reach(13))
        bench.result(reader.close())

    def test_an_upload_without_bytes_reads_as_none(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=100))
        assert bench.result(engine.content()) == b""

    def test_a_missing_or_short_segment_is_not_yet_and_never_damage(self, bench):
        engine = self.spread(bench)
        path = engine.names.segment_path(engine.catalog.rows[ID].segments[1].name)
        reader = bench.result(engine.spool.reader(ID))
        for change in (lambda: bench.write(path, b"78"), lambda: engine.disk.unlink(path)):
            change()
            for read in (reader.read(5, 10), engine.spool.read(ID, 5, 10), engine.spool.read_start((ID, 10))):
                with pytest.raises(NotReadable):
                    bench.result(read)
            with pytest.raises(NotReadable):
                reader.lend().read(5, 10)
            assert bench.result(reader.read(0, 7)) == ALL[:7]
        assert bench.result(engine.spool.check(Upload(ID, 0.0, 0.0, offset=27))) is None

    def test_so_is_a_missing_file_of_a_whole_upload(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=5, data=b"hello"))
        engine.disk.unlink(engine.spool.path(ID))
        for read in (engine.spool.reader(ID), engine.spool.read(ID, 0, 1), engine.spool.read_start((ID, 1))):
            with pytest.raises(NotReadable):
                bench.result(read)

    def test_an_upload_whose_data_is_gone_is_not_found(self, bench):
        engine = bench.engine()
        for read in (engine.spool.reader(ID), engine.spool.read(ID, 0, 1), engine.spool.read_start((ID, 1))):
            with pytest.raises(FileNotFoundError):
                bench.result(read)

    def test_a_reader_goes_on_while_its_upload_becomes_one_file_and_its_segments_go(self, bench):
        engine = self.spread(bench)
        reader = bench.result(engine.spool.reader(ID))
        bench.result(engine.small(b"." * 73))
        bench.result(engine.joiner._tasks.ended())
        bench.pass_time(61)
        bench.result(engine.sweeper.sweep_discarded())
        assert bench.files(engine.names.segments) == []
        assert bench.result(reader.read(3, 10)) == ALL[3:13]
        bench.result(reader.close())

    def test_beginnings_of_many_uploads_are_read_together(self, bench):
        engine = self.spread(bench)
        bench.result(engine.create(OTHER, length=5, data=b"hello"))
        starts = [(ID, 8), (OTHER, 100), (ID, 100), ("c" * 32, 1)]
        reads = [engine.spool.read_start(each) for each in starts]
        assert [bench.result(each) for each in reads[:3]] == [ALL[:8], b"hello", ALL]
        with pytest.raises(FileNotFoundError):
            bench.result(reads[3])

    # -- one file

    def test_an_upload_of_one_own_segment_is_linked(self, bench):
        engine = bench.engine()
        bench.result(engine.create(length=7))
        bench.result(engine.long(b"0123", b"456"))
        bench.result(engine.joiner._tasks.ended())
        row = engine.catalog.rows[ID]
        assert (row.whole, row.segments, engine.joiner.linked, engine.joiner.joined) == (True, [], 1, 1)
        assert bench.file(engine.spool.path(ID)) == b"0123456" == bench.result(engine.content())
        assert bench.files(engine.names.finals) == []

    def test_others_are_copied_and_replace_what_has_the_name(self, bench):
        engine = self.spread(bench)
        bench.write(engine.spool.path(ID), b"nobody's")
        bench.result(engine.small(b"." * 73))
        bench.result(engine.joiner._tasks.ended())
        assert (engine.joiner.linked, engine.joiner.joined) == (0, 1)
        assert bench.file(engine.spool.path(ID)) == ALL + b"." * 73 == bench.result(engine.content())
        assert bench.files(engine.names.finals) == []

    def test_another_workers_segment_is_never_linked_as_it_may_still_write_to_it(self, bench):
        first, second = bench.engine("w1"), bench.engine("w2")
        bench.result(first.create(length=7))
        append = bench.result(first.begin())
        bench.result(append.open())
        bench.result(append.write(b"0123456", last=True))  # and then it stands still
        bench.result(second.joined())
        assert (second.joiner.linked, second.joiner.joined) == (0, 1)
        append.sink.write(b"a late byte")
        bench.result(append.sink.sync())
        bench.result(append.close())
        assert bench.file(first.spool.path(ID)) == b"0123456"

    def test_joining_twice_or_by_two_workers_leaves_one_whole_file(self, bench):
        first, second = bench.engine("w1"), bench.engine("w2")
        bench.result(first.create(length=7))
        first.context.listeners.joinable.clear()
        bench.result(first.long(b"0123456"))
        layout = bench.result(first.catalog.of(ID))
        assert bench.result(first.spool.link(layout)) and not bench.result(second.spool.link(layout))
        for engine in (second, first):
            bench.result(engine.joined())
        assert bench.file(first.spool.path(ID)) == b"0123456" and first.catalog.rows[ID].whole

    def test_many_segments_of_an_unfinished_upload_become_few_and_the_last_stays(self, bench):
        engines = [bench.engine("w1"), bench.engine("w2")]
        bench.result(engines[0].create(length=1000))
        data = b""
        for at in range(70):
            piece = b"%d;" % at
            data += piece
            bench.result(engines[at % 2].small(piece))
        last = engines[0].catalog.rows[ID].segments[-1]
        bench.result(engines[0].joined())
        segments = engines[0].catalog.rows[ID].segments
        assert len(segments) < 64 and segments[-1] == last
        bench.result(engines[1].small(b"end"))
        assert len(engines[0].catalog.rows[ID].segments) == len(segments), "it goes on with its last one"
        assert bench.result(engines[0].content()) == data + b"end"
        bench.pass_time(61)
        bench.result(engines[0].sweeper.sweep_discarded())
        assert len(bench.files(engines[0].names.segments)) == len(segments)

    def left_over(self, bench, *sizes):
        """Finished uploads of two segments each, so big, that nobody has joined; each with an id of its own."""
        one, two = bench.engine("w1"), bench.engine("w2")
        for engine in (one, two):
            engine.context.listeners.joinable.clear()
        ids = [f"{at:032x}" for at in range(len(sizes))]
        for upload_id, size in zip(ids, sizes, strict=True):
            bench.result(one.create(upload_id, length=size))
            bench.result(one.small(b"a", upload_id))
            bench.result(two.small(b"b" * (size - 1), upload_id))
        return one, ids

    def hold_up(self, engine, upload_id):
        """Its copy waits before its first step; what lets it go on."""
        go_on, joining = Deferred(), engine.spool.joining

        def slow(layout):
            made = joining(layout)
            if layout.upload_id == upload_id:
                look = made.look
                made.look = lambda: look().addCallback(lambda _: go_on)
            return made

        engine.spool.joining = slow
        return go_on

    def wholes(self, engine):
        return [upload_id for upload_id, row in engine.catalog.rows.items() if row.whole]

    def test_a_copy_that_takes_long_keeps_neither_others_nor_the_next_round(self, bench):
        engine, ids = self.left_over(bench, 20, 20, 20)
        go_on = self.hold_up(engine, ids[0])
        bench.result(engine.joiner.sweep())
        bench.wait(lambda: self.wholes(engine) == ids[1:])
        bench.result(engine.create(OTHER, length=2))
        bench.result(engine.small(b".", OTHER))
        bench.result(bench.engine("w3").small(b".", OTHER))
        bench.result(engine.joiner.sweep())
        bench.wait(lambda: self.wholes(engine) == [*ids[1:], OTHER])
        go_on.callback(None)
        bench.result(engine.joiner._tasks.ended())
        assert self.wholes(engine) == [*ids, OTHER]

    def test_only_so_many_copies_are_long_and_others_are_left_to_a_later_round(self, bench, monkeypatch):
        monkeypatch.setattr(joining, "LONG", 10)
        monkeypatch.setattr(joining, "LONG_AT_ONCE", 1)
        engine, ids = self.left_over(bench, 20, 30, 9)
        go_on = self.hold_up(engine, ids[0])
        for _ in range(2):
            bench.result(engine.joiner.sweep())
            bench.wait(lambda: self.wholes(engine) == ids[2:])
        go_on.callback(None)
        bench.result(engine.joiner._tasks.ended())
        bench.result(engine.swept())
        assert self.wholes(engine) == ids

    def test_an_open_file_that_is_still_shown_short_is_opened_anew(self, bench):
        """As a network file system may show it to another node while its writer has it open."""
        one, two = bench.engine("w1"), bench.engine("w2")
        bench.result(one.create(length=100))
        bench.result(one.small(ALL[:7]))
        reader = bench.result(two.spool.reader(ID))
        bench.result(one.small(ALL[7:]))

        class Stale:
            def __getattr__(self, name):
                return getattr(two.disk, name)

            def read(self, fd, size, offset):
                return two.disk.read(fd, size, offset)[: max(0, 7 - offset)]

        reader._disk = Stale()
        bench.result(reader.reach(len(ALL)))
        with pytest.raises(NotReadable):
            loan = reader.lend()
            loan.read(0, len(ALL))
        loan.give_back()
        fed = []
        assert bench.result(reader.scan(3, 20, fed.append)) == 20
        assert b"".join(fed) == ALL[3:23]
        assert bench.result(reader.read(2, 100)) == ALL[2:]
        bench.result(reader.close())

    def test_an_assembly_copies_from_segments_and_from_whole_files(self, bench):
        engine = self.spread(bench)
        bench.result(engine.create(OTHER, length=5, data=b"hello"))
        bench.result(engine.catalog.create(Upload("f" * 32, 0.0, 0.0)))
        segment = bench.result(engine.assemble("f" * 32, [(ID, 27), (OTHER, 5), (ID, 27)]))
        assert (segment.start, segment.size, segment.name) == (0, 59, WHOLE)
        engine.finish_final("f" * 32, segment)
        assert bench.result(engine.content("f" * 32)) == ALL + b"hello" + ALL
        assert bench.files(engine.names.finals) == []

    def test_an_assembly_goes_on_where_a_partial_became_one_file_meanwhile(self, bench):
        one, two = bench.engine("w1"), bench.engine("w2")
        for engine in (one, two):
            engine.context.listeners.joinable.clear()
        bench.result(one.create(length=20))
        bench.result(one.small(ALL[:10]))
        bench.result(two.small(ALL[:10]))

        async def assemble():
            assembly = two.spool.assembly(OTHER, [(ID, 20)])
            await assembly.look()
            await assembly.copy(assembly.next_size(False))
            await one.joined()
            bench.pass_time(REMOVED_AFTER + 1)
            await one.sweeper.sweep_discarded()
            while not assembly.complete:
                await assembly.copy(assembly.next_size(False))
            await assembly.name()

        bench.result(assemble())
        assert bench.file(two.spool.path(OTHER)) == ALL[:10] * 2

    def test_what_another_worker_has_joined_meanwhile_is_not_replaced(self, bench):
        """Its file may be on its way to a place by now, by which it is known."""
        one, two = bench.engine("w1"), bench.engine("w2")
        for engine in (one, two):
            engine.context.listeners.joinable.clear()
        bench.result(one.create(length=20))
        bench.result(one.small(ALL[:10]))
        bench.result(two.small(ALL[:10]))
        path = one.spool.path(ID)

        async def join_twice():
            copy = one.spool.joining(await one.catalog.of(ID))
            one.spool.joining = lambda layout: copy
            first, kept = copy.copy, []

            async def copying(size):
                await first(size)
                if not kept:
                    await two.joined()
                    kept.append(two.disk.look(path).inode)

            copy.copy = copying
            await one.joiner._join(ID)
            return kept[0]

        assert bench.result(join_twice()) == one.disk.look(path).inode
        assert bench.file(path) == ALL[:10] * 2
        assert not [each for each in bench.files(one.names.finals) if ID in each]

    def test_an_assembly_of_a_partial_that_can_t_be_read_waits(self, bench):
        engine = self.spread(bench)
        with pytest.raises(NotReadable):
            bench.result(engine.assemble("f" * 32, [(ID, 28)]))
        engine.disk.unlink(engine.names.segment_path(engine.catalog.rows[ID].segments[1].name))
        with pytest.raises(NotReadable):
            bench.result(engine.assemble("f" * 32, [(ID, 27)]))

    # -- the directory

    def test_another_catalogs_directory_is_refused_in_one_line(self, bench):
        bench.engine()
        with pytest.raises(StartupError, match=r"belongs to another catalog") as refused:
            bench.engine("w2", installation="installation-2")
        assert "\n" not in str(refused.value)

    def test_a_directory_without_the_marker_is_refused_where_there_should_be_one(self, bench):
        with pytest.raises(StartupError, match="no marker"):
            bench.engine(may_mark=False)
        assert bench.files(bench.directory) == []
        bench.engine("w2")
        bench.engine("w3", may_mark=False)

    def test_a_directory_that_is_not_the_one_that_others_share_is_refused_and_left_unmarked(self, bench):
        recorded = []

        def agree(directory):
            recorded.append(directory)
            return "another"

        with pytest.raises(StartupError, match="is not the one that the servers of this catalog share"):
            bench.engine(agree=agree)
        assert len(recorded) == 1 and recorded[0] != ""
        assert not any("marker" in path for path in bench.files(bench.directory))

    def test_processes_of_one_directory_agree_on_it(self, bench):
        recorded = []

        def agree(directory):
            recorded.append(directory)
            return recorded[0]

        names = bench.engine(agree=agree).names
        bench.engine("w2", agree=agree)
        assert recorded == [recorded[0]] * 2
        names.check(False, recorded[0])
        with pytest.raises(StartupError, match="is not the one"):
            names.check(False, "another")

    def test_a_small_upload_is_not_taken_while_the_directory_is_not_there(self, bench):
        engine = bench.engine()
        marker = f"{engine.names.root}/.resumable/marker"
        engine.disk.rename(marker, f"{engine.names.root}/elsewhere")
        with pytest.raises(OSError):
            bench.result(engine.create(length=4, data=b"0123"))
        assert bench.file(engine.spool.path(ID)) is None and ID not in engine.catalog.rows
        engine.disk.rename(f"{engine.names.root}/elsewhere", marker)
        bench.result(engine.create(length=4, data=b"0123"))
        assert bench.file(engine.spool.path(ID)) == b"0123"

    def test_nothing_is_removed_while_the_marker_is_not_seen(self, bench):
        engine = self.spread(bench)
        bench.result(engine.small(b"." * 73))
        bench.result(engine.joiner._tasks.ended())
        bench.pass_time(61)
        before = bench.files(engine.names.segments)
        assert len(before) == 5
        for path in before:
            bench.age(path, 90_000)
        engine.disk.rename(f"{engine.names.root}/.resumable/marker", f"{engine.names.root}/elsewhere")
        assert not bench.result(engine.spool.is_ours())
        bench.result(engine.sweeper.sweep_discarded())
        bench.result(engine.sweeper.sweep_unknown())
        assert bench.files(engine.names.segments) == before
        engine.disk.rename(f"{engine.names.root}/elsewhere", f"{engine.names.root}/.resumable/marker")
        bench.result(engine.sweeper.sweep_discarded())
        assert bench.files(engine.names.segments) == []

    @pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "x" * 201])
    def test_no_path_leaves_the_directory(self, bench, name):
        engine = bench.engine()
        for ask in (engine.spool.path, engine.names.segment_path):
            with pytest.raises(ValueError):
                ask(name)

    def test_a_long_append_of_several_megabytes(self, bench):
        engine = bench.engine(step=MIB)
        piece = bytes(range(256)) * 8192
        bench.result(engine.create(length=3 * len(piece)))
        bench.result(engine.long(piece, piece, piece))
        bench.result(engine.joiner._tasks.ended())
        assert bench.file(engine.spool.path(ID)) == piece * 3
