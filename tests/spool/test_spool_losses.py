"""An upload is lost when one of its files is missing for an hour from a directory that is there; else never."""

from __future__ import annotations

import errno
import os

import pytest

from resumable.model.upload import GoneReason
from resumable.spool.segments import loss_sweep
from resumable.spool.segments.loss_sweep import AGAIN, LOST_AFTER
from resumable.spool.segments.segment_directory import OLD_SIGN
from tests.spool.late_disk import LateDisk
from tests.spool.segment_bench import ID, OTHER, RealSegmentBench, SimulatedBench

DATA = b"0123456789"
WHOLE_ID = "c" * 32


@pytest.fixture(params=["simulated", "real"])
def bench(request, directory):
    bench = SimulatedBench() if request.param == "simulated" else RealSegmentBench(directory)
    yield bench
    bench.stop()


@pytest.fixture
def engine(bench):
    """One upload of two segments, one in one file, and one without a byte."""
    engine, other = bench.engine(), bench.engine("w2")
    bench.result(engine.create(length=100))
    bench.result(engine.small(DATA[:4]))
    bench.result(other.small(DATA[4:]))
    bench.result(engine.create(WHOLE_ID, length=5, data=b"hello"))
    bench.result(engine.create(OTHER, length=9))
    return engine


def segment(engine, at=0):
    return engine.names.segment_path(engine.catalog.rows[ID].segments[at].name)


def gone(engine):
    return {each: row.upload.gone for each, row in engine.catalog.rows.items() if row.upload.gone}


def look(bench, engine, seconds=0.0, every=AGAIN):
    """A look now, and at each ``every`` seconds of ``seconds``."""
    bench.result(engine.losses.step())
    while seconds > 0:
        bench.pass_time(min(every, seconds))
        seconds -= every
        bench.result(engine.losses.step())


def unmount(engine):
    root = f"{engine.names.root}/.resumable"
    engine.disk.rename(f"{root}/marker", f"{root}/elsewhere")


def mount(engine):
    root = f"{engine.names.root}/.resumable"
    engine.disk.rename(f"{root}/elsewhere", f"{root}/marker")


class Failing:
    """A disk whose ``look`` fails for paths with this in them."""

    def __init__(self, disk, word):
        self._disk, self._word = disk, word

    def __getattr__(self, name):
        return getattr(self._disk, name)

    def look(self, what, within=None):
        if self._word in str(what):
            raise OSError(errno.EIO, os.strerror(errno.EIO), what)
        return self._disk.look(what, within)


def test_what_is_there_is_never_lost(bench, engine):
    look(bench, engine, 3 * LOST_AFTER)
    assert gone(engine) == {}


@pytest.mark.parametrize("at", [0, 1])
def test_an_upload_is_lost_when_a_segment_is_missing_for_an_hour(bench, engine, at):
    engine.disk.unlink(segment(engine, at))
    look(bench, engine, LOST_AFTER - 1)
    assert gone(engine) == {}
    look(bench, engine, AGAIN)
    assert gone(engine) == {ID: GoneReason.LOST}


def test_so_is_one_whose_file_is_missing(bench, engine):
    engine.disk.unlink(engine.spool.path(WHOLE_ID))
    look(bench, engine, LOST_AFTER)
    assert gone(engine) == {WHOLE_ID: GoneReason.LOST}


def test_a_file_that_is_shorter_than_the_row_counts_is_missing_too(bench, engine):
    bench.write(segment(engine, 1), DATA[4:-1])
    look(bench, engine, LOST_AFTER)
    assert gone(engine) == {ID: GoneReason.LOST}


def test_and_one_that_is_no_file(bench, engine):
    engine.disk.unlink(segment(engine))
    engine.disk.make_directory(segment(engine))
    look(bench, engine, LOST_AFTER)
    assert gone(engine) == {ID: GoneReason.LOST}


def test_what_is_missing_in_a_copy_of_the_directory_is_not_lost(bench, engine):
    """What others write comes into their directory."""
    engine.disk.unlink(segment(engine))
    look(bench, engine, LOST_AFTER - AGAIN)
    engine.strangers = ["w3"]
    look(bench, engine, 3 * LOST_AFTER)
    assert gone(engine) == {}
    engine.strangers = []
    look(bench, engine, LOST_AFTER - 1)
    assert gone(engine) == {}, "the hour began anew"
    look(bench, engine, 2 * AGAIN)
    assert gone(engine) == {ID: GoneReason.LOST}


def test_each_worker_has_a_sign_in_the_directory_as_long_as_it_lives(bench, engine):
    names, other = engine.names, bench.engine("w3").names
    assert names.unsigned(["w1", "w3"]) == ["w1", "w3"]
    names.sign()
    other.sign()
    other.sign()
    assert names.unsigned(["w1", "w3"]) == []
    names.drop_signs([])
    assert names.unsigned(["w1", "w3"]) == [], "whoever has signed is about to get a row"
    for worker in ("w1", "w3"):
        bench.age(f"{names.root}/.resumable/workers/{worker}", OLD_SIGN + 1)
    names.drop_signs(["w1"])
    assert names.unsigned(["w1", "w3"]) == ["w3"]
    names.take_sign()
    assert names.unsigned(["w1"]) == ["w1"]


def test_uncommitted_bytes_behind_the_counted_ones_are_no_matter(bench, engine):
    bench.write(segment(engine), DATA)
    look(bench, engine, LOST_AFTER)
    assert gone(engine) == {}


def test_a_file_that_comes_back_within_the_hour_was_never_missing(bench, engine):
    path = segment(engine)
    engine.disk.rename(path, f"{path}-away")
    look(bench, engine, LOST_AFTER - AGAIN)
    engine.disk.rename(f"{path}-away", path)
    look(bench, engine, AGAIN)
    engine.disk.rename(path, f"{path}-away")  # the hour begins anew
    look(bench, engine, LOST_AFTER - AGAIN)
    assert gone(engine) == {}


def test_where_another_file_is_missing_the_hour_begins_anew(bench, engine):
    first, second = segment(engine), segment(engine, 1)
    engine.disk.rename(first, f"{first}-away")
    look(bench, engine, LOST_AFTER - AGAIN)
    engine.disk.rename(f"{first}-away", first)
    engine.disk.unlink(second)
    look(bench, engine, LOST_AFTER - AGAIN)
    assert gone(engine) == {}
    look(bench, engine, 2 * AGAIN)
    assert gone(engine) == {ID: GoneReason.LOST}


def test_nothing_is_lost_in_a_directory_that_is_not_mounted(bench, engine):
    unmount(engine)
    engine.disk.unlink(segment(engine))
    look(bench, engine, 3 * LOST_AFTER)
    assert gone(engine) == {}
    mount(engine)  # only now it is known to be missing
    look(bench, engine, LOST_AFTER - 1)
    assert gone(engine) == {}


def test_a_directory_that_was_away_begins_the_hour_anew(bench, engine):
    engine.disk.unlink(segment(engine))
    look(bench, engine, LOST_AFTER - AGAIN)
    unmount(engine)
    look(bench, engine, AGAIN)
    mount(engine)
    look(bench, engine, LOST_AFTER - AGAIN)
    assert gone(engine) == {}


def test_a_directory_that_goes_away_during_the_last_look_loses_nothing(bench, engine):
    """Its files are missing then, and the marker was there before."""
    missing = segment(engine)
    engine.disk.unlink(missing)
    look(bench, engine, LOST_AFTER - AGAIN)
    looks, is_ours = [], engine.names.is_ours

    class Vanishing(Failing):
        def look(self, what, within=None):
            looks.append(what == missing)
            return self._disk.look(what, within)

    engine.names.disk = Vanishing(engine.disk, "")
    engine.names.is_ours = lambda: sum(looks) < 2 and is_ours()
    look(bench, engine, 2 * AGAIN)
    assert sum(looks) == 2 and gone(engine) == {}


def test_a_file_that_cannot_be_looked_at_is_not_missing_and_keeps_no_other(bench, engine):
    engine.names.disk = Failing(engine.disk, f"/{ID}.")
    engine.disk.unlink(segment(engine))
    engine.disk.unlink(engine.spool.path(WHOLE_ID))
    look(bench, engine, LOST_AFTER)
    assert gone(engine) == {WHOLE_ID: GoneReason.LOST}


def test_a_marker_that_cannot_be_read_begins_the_hour_anew(bench, engine):
    engine.disk.unlink(segment(engine))
    look(bench, engine, LOST_AFTER - AGAIN)
    is_ours, engine.names.is_ours = engine.names.is_ours, lambda: (_ for _ in ()).throw(OSError(errno.EIO, "broken"))
    bench.pass_time(AGAIN)
    with pytest.raises(OSError):
        bench.result(engine.losses.step())
    engine.names.is_ours = is_ours
    look(bench, engine, LOST_AFTER - AGAIN)
    assert gone(engine) == {}


def test_the_hour_begins_anew_after_a_time_in_which_nobody_looked(bench, engine):
    """The catalog was away, or another worker was to look, and didn't see it missing."""
    engine.disk.unlink(segment(engine))
    look(bench, engine)
    bench.pass_time(LOST_AFTER)
    look(bench, engine, LOST_AFTER - AGAIN)
    assert gone(engine) == {}
    look(bench, engine, 2 * AGAIN)
    assert gone(engine) == {ID: GoneReason.LOST}


def test_the_row_is_read_again_before_a_miss_is_believed(bench, engine):
    """The segments become one file between the question and the look."""
    kept, layout = engine.catalog.kept, bench.result(engine.catalog.of(ID))
    for at in range(2):
        engine.disk.unlink(segment(engine, at))
    row = engine.catalog.rows[ID]
    row.whole, row.segments = True, []
    bench.write(engine.spool.path(ID), DATA)
    engine.catalog.kept = lambda after, limit: kept(after, limit).addCallback(
        lambda found: ([layout if each.upload_id == ID else each for each in found[0]], found[1])
    )
    look(bench, engine)
    assert not engine.losses._missed
    look(bench, engine, 2 * LOST_AFTER)
    assert gone(engine) == {}


def test_what_is_removed_or_ended_meanwhile_is_no_loss(bench, engine):
    engine.disk.unlink(segment(engine))
    look(bench, engine, LOST_AFTER - AGAIN)
    engine.catalog.end(ID, GoneReason.TERMINATED)
    engine.catalog.data_removed([ID])
    look(bench, engine, 2 * AGAIN)
    assert gone(engine) == {ID: GoneReason.TERMINATED} and not engine.losses._missed


def test_what_somebody_could_not_read_is_looked_at_first(bench, engine, monkeypatch):
    monkeypatch.setattr(loss_sweep, "PAGES", 0)
    engine.disk.unlink(segment(engine))
    look(bench, engine, 2 * LOST_AFTER)
    assert gone(engine) == {}
    for each in (ID, WHOLE_ID, "unknown"):
        engine.losses.suspect(each)
    look(bench, engine, LOST_AFTER)
    assert gone(engine) == {ID: GoneReason.LOST}


def test_a_step_looks_at_so_many_pages_and_a_round_at_all(bench, engine, monkeypatch):
    monkeypatch.setattr(loss_sweep, "PAGE", 2)
    monkeypatch.setattr(loss_sweep, "PAGES", 3)
    asked, kept = [], engine.catalog.kept
    engine.catalog.kept = lambda after, limit: asked.append((after, limit)) or kept(after, limit)
    for at in range(5):
        bench.result(engine.create(f"{at:032x}", length=1, data=b"."))
    ids = sorted(engine.catalog.rows)
    look(bench, engine)
    assert asked == [("", 2), (ids[1], 2), (ids[3], 2)]
    engine.disk.unlink(engine.spool.path(WHOLE_ID))  # the last one
    look(bench, engine)
    assert asked[3:] == [(ids[5], 2), (ids[7], 2)] and list(engine.losses._missed) == [WHOLE_ID]
    look(bench, engine)
    assert len(asked) == 5, "the next round is later"
    look(bench, engine, AGAIN)
    assert asked[5] == ("", 2)


def test_only_so_many_are_remembered_and_the_rest_is_found_later(bench, engine, monkeypatch):
    monkeypatch.setattr(loss_sweep, "MOST", 1)
    engine.disk.unlink(segment(engine))
    engine.disk.unlink(engine.spool.path(WHOLE_ID))
    for each in (ID, WHOLE_ID):
        engine.losses.suspect(each)
    look(bench, engine, LOST_AFTER)
    assert gone(engine) == {ID: GoneReason.LOST}
    look(bench, engine, LOST_AFTER + AGAIN)
    assert set(gone(engine)) == {ID, WHOLE_ID}


def test_a_stop_ends_a_step_after_its_page(bench, engine):
    engine.losses.stop()
    engine.catalog.kept = None
    look(bench, engine)


def test_a_file_that_grows_is_not_lost_where_it_is_always_seen_shorter_than_the_row_says():
    bench = SimulatedBench()
    writer, sweeping = bench.engine(), bench.engine("w2")
    bench.result(writer.create(length=100))
    bench.result(writer.small(DATA))
    late = sweeping.names.disk = LateDisk(bench.disk, 0)
    late.late_files = 1.0
    for _ in range(2 * int(LOST_AFTER / AGAIN)):
        late.expire()
        late.look(segment(writer))  # somebody on that machine reads it
        bench.result(writer.small(b"."))
        look(bench, sweeping)
        bench.pass_time(AGAIN)
    assert len(writer.catalog.rows[ID].segments) == 1
    assert gone(writer) == {}
    bench.disk.truncate(late.open(segment(writer)), 20)
    late.expire()
    look(bench, sweeping, LOST_AFTER)
    assert gone(writer) == {ID: GoneReason.LOST}
