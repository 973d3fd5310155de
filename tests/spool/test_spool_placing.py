"""Finished files get places of their own, exactly once, whatever stops that; and nothing leaves the directory."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.model.upload import Place
from resumable.spool.placing import MAX_NAME, NUMBERS, SIDECAR, Collision, Order, Rules, candidates, fitted
from resumable.testing import SimulatedCrash, SimulatedDisk
from tests.spool.spool_bench import Bench, RealBench

ROOT = "/out"
A, B = "a" * 32, "b" * 32
DATA = b"the whole file"
FOREIGN = b"somebody else's"


def ready(disk=None):
    """A spool with a finished upload, and a directory for it, both durable."""
    bench = Bench(disk=disk)
    if disk is None:
        bench.disk.make_directory(ROOT)
        bench.disk.sync_directory("/")
        bench.put_file(DATA, A)
    return bench


def places(bench, **rules):
    return bench.spool.places(ROOT, Rules(**rules))


def order(path="2026-01-31/in/report.pdf", upload_id=A, sidecar=True):
    said = (lambda place: json.dumps({"id": upload_id, "place": place}).encode()) if sidecar else None
    return Order(upload_id, path, said)


def put(disk, path, data):
    """A durable file of somebody else's."""
    at = ""
    for name in path.split("/")[1:-1]:
        disk.make_directory(f"{at}/{name}")
        disk.sync_directory(at or "/")
        at = f"{at}/{name}"
    fd = disk.open(path, create=True)
    disk.writev(fd, [data], 0)
    disk.fsync(fd)
    disk.close(fd)
    disk.sync_directory(os.path.dirname(path))


def content(disk, path):
    if disk.file_size(path) is None:
        return None
    fd = disk.open(path, read_only=True)
    try:
        return disk.read(fd, 1 << 20, 0)
    finally:
        disk.close(fd)


def tree(disk, path=ROOT):
    """Every file below, by its path from there."""
    found = {}
    for name in disk.names(path):
        whole = f"{path}/{name}"
        if disk.file_size(whole) is None:
            found |= {f"{name}/{rest}": data for rest, data in tree(disk, whole).items()}
        else:
            found[name] = content(disk, whole)
    return found


def files(disk):
    return {name: data for name, data in tree(disk).items() if not name.endswith(SIDECAR)}


def test_a_file_is_placed_with_its_sidecar_and_stays_in_the_spool():
    bench = ready()
    (place,) = places(bench).place([order()])
    assert place.path == "2026-01-31/in/report.pdf"
    assert tree(bench.disk) == {
        "2026-01-31/in/report.pdf": DATA,
        f"2026-01-31/in/report.pdf{SIDECAR}": json.dumps({"id": A, "place": place.path}).encode(),
    }
    assert bench.content(upload_id=A) == DATA
    assert bench.disk.open_files == 0
    assert list(bench.disk.names("/spool/.resumable/placing")) == []


def test_the_sidecar_is_there_before_the_file():
    bench = ready()
    places(bench).place([order()])
    links = [path for operation, path in bench.disk.trace if operation == "link"]
    assert links == [f"/spool/.resumable/placing/{A}{SIDECAR}", f"/spool/{A}"]


def test_a_name_that_is_taken_is_numbered_and_nothing_is_replaced():
    bench = ready()
    put(bench.disk, f"{ROOT}/x.tar", FOREIGN)
    put(bench.disk, f"{ROOT}/x (2).tar{SIDECAR}", FOREIGN)
    (place,) = places(bench).place([order("x.tar")])
    assert place.path == "x (3).tar"
    assert files(bench.disk) == {"x.tar": FOREIGN, "x (3).tar": DATA}
    assert tree(bench.disk)[f"x (2).tar{SIDECAR}"] == FOREIGN


def test_after_a_hundred_numbers_the_id_is_taken():
    bench = ready()
    for name in list(candidates("x", A))[:-1]:
        put(bench.disk, f"{ROOT}/{name}", b"")
    (place,) = places(bench).place([order("x")])
    assert place.path == f"x ({A})"


def test_with_refuse_the_file_waits_until_the_name_is_free():
    bench = ready()
    put(bench.disk, f"{ROOT}/x", FOREIGN)
    (refused,) = places(bench, collision=Collision.REFUSE).place([order("x")])
    assert isinstance(refused, FileExistsError)
    assert tree(bench.disk) == {"x": FOREIGN}
    bench.disk.unlink(f"{ROOT}/x")
    (place,) = places(bench, collision=Collision.REFUSE).place([order("x")])
    assert files(bench.disk) == {place.path: DATA}


def test_with_replace_the_newest_has_the_name():
    bench = ready()
    bench.put_file(b"newer", B)
    where = places(bench, collision=Collision.REPLACE)
    (first,) = where.place([order("x")])
    (second,) = where.place([order("x", B)])
    assert first.path == second.path == "x"
    assert files(bench.disk) == {"x": b"newer"} and json.loads(tree(bench.disk)[f"x{SIDECAR}"])["id"] == B
    assert where.open(first, len(DATA)) is None, "it was taken away"
    assert list(bench.disk.names("/spool/.resumable/placing")) == []


def test_one_that_can_not_be_placed_keeps_no_other_from_it():
    bench = ready()
    put(bench.disk, f"{ROOT}/file", FOREIGN)
    bench.put_file(b"other", B)
    results = places(bench).place([order("file/below"), order("fine", B), order("none", "c" * 32)])
    assert [type(each) for each in results] == [NotADirectoryError, Place, FileNotFoundError]
    assert files(bench.disk) == {"file": FOREIGN, "fine": b"other"}


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a//x", "/x", ".", "", "a/.", "a\0b", "a/"])
def test_a_path_that_leaves_its_place_is_refused(path):
    """A damaged catalog may have any."""
    bench = ready()
    (refused,) = places(bench).place([order(path)])
    assert isinstance(refused, OSError) and refused.errno == errno.EINVAL
    assert places(bench).open(Place(path, "1"), 1) is None
    places(bench).remove(A, Place(path, "1"), 1)
    assert tree(bench.disk) == {}


# -- crashes

RULES = [
    Rules(),
    Rules(collision=Collision.REPLACE, file_mode=0o640, directory_mode=0o750),
]


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules.collision.value)
@pytest.mark.parametrize("power", [True, False])
def test_a_crash_at_every_step_leaves_the_file_in_one_place(power, rules):
    """Death at every step, then the same call: the file is there once, whole; nothing of others' has changed."""
    step, crashed = 0, True
    while crashed:
        step += 1
        crashed = False
        for before in (True, False):
            for seed in range(3):
                bench = ready()
                put(bench.disk, f"{ROOT}/d/other", FOREIGN)
                if rules.collision is Collision.NUMBER:
                    put(bench.disk, f"{ROOT}/d/x.bin", FOREIGN)
                bench.disk.crash_at(bench.disk.steps + step, before=before)
                try:
                    bench.spool.places(ROOT, rules).place([order("d/x.bin")])
                except SimulatedCrash:
                    crashed = True
                again = ready(bench.disk.crash(Random(seed)) if power else bench.disk.kill())
                assert set(files(again.disk).values()) <= {DATA, FOREIGN}, "never a part of it"
                assert again.content(upload_id=A) == DATA
                (place,) = again.spool.places(ROOT, rules).place([order("d/x.bin")])
                placed_once(again.disk, place, rules)
                placed_once(again.disk.crash(Random(seed)), place, rules)
    assert step > 20


def placed_once(disk: SimulatedDisk, place: Place, rules: Rules) -> None:
    others = {"d/other": FOREIGN} | ({"d/x.bin": FOREIGN} if rules.collision is Collision.NUMBER else {})
    assert files(disk) == {place.path: DATA} | others
    assert json.loads(tree(disk)[f"{place.path}{SIDECAR}"]) == {"id": A, "place": place.path}
    seen = disk.look(f"{ROOT}/{place.path}")
    assert str(seen.modified) == place.stamp


@pytest.mark.parametrize("stamped", [True, False], ids=["recorded", "not recorded"])
@pytest.mark.parametrize("power", [True, False])
def test_a_crash_at_every_step_of_removing_takes_nothing_of_others(power, stamped):
    step, crashed = 0, True
    while crashed:
        step += 1
        crashed = False
        for before in (True, False):
            bench = ready()
            put(bench.disk, f"{ROOT}/d/x", FOREIGN)
            (place,) = places(bench).place([order("d/x")])
            if not stamped:
                place = Place("d/x")
            bench.disk.crash_at(bench.disk.steps + step, before=before)
            try:
                places(bench).remove(A, place, len(DATA))
            except SimulatedCrash:
                crashed = True
            again = ready(bench.disk.crash(Random(step)) if power else bench.disk.kill())
            places(again).remove(A, place, len(DATA))
            for disk in (again.disk, again.disk.crash(Random(step))):
                assert tree(disk) == {"d/x": FOREIGN}
                assert content(disk, f"/spool/{A}") == DATA
    assert step > 8


@pytest.mark.parametrize("operation", ["open_directory", "make_directory", "link", "fsync", "writev", "look", "open"])
def test_after_any_failure_it_can_be_done_again(operation):
    for after in range(4):
        bench = ready()
        bench.disk.fail_next(operation, errno.EIO, after=after)
        results = []
        while not results or not isinstance(results[-1], Place):
            try:
                results += places(bench).place([order("d/x")])
            except OSError as error:
                results.append(error)
            assert bench.disk.open_files == 0
            assert len(results) < 4
        disk = bench.disk.kill()  # one without a failure that is still to come
        assert files(disk) == {"d/x": DATA}
        assert list(disk.names("/spool/.resumable/placing")) == []


# -- afterwards


def test_what_was_placed_can_be_read_without_the_spools_own_name():
    bench = ready()
    (place,) = places(bench).place([order()])
    bench.disk.unlink(f"/spool/{A}")
    fd = places(bench).open(place, len(DATA))
    assert bench.disk.read(fd, 100, 0) == DATA


@pytest.mark.parametrize("change", ["moved", "changed", "replaced", "longer"])
def test_what_the_operator_took_or_changed_is_neither_read_nor_removed(change):
    bench = ready()
    (place,) = places(bench).place([order("d/x")])
    path = f"{ROOT}/d/x"
    if change == "moved":
        bench.disk.rename(path, f"{ROOT}/d/y")
    elif change == "replaced":
        bench.disk.unlink(path)
        put(bench.disk, path, DATA)
    else:
        fd = bench.disk.open(path)
        bench.disk.writev(fd, [b"X"], 0 if change == "changed" else len(DATA))
        bench.disk.close(fd)
    before = tree(bench.disk)
    assert places(bench).open(place, len(DATA)) is None
    places(bench).remove(A, place, len(DATA))
    assert files(bench.disk) == {name: data for name, data in before.items() if not name.endswith(SIDECAR)}
    assert (f"d/x{SIDECAR}" in tree(bench.disk)) is (change != "moved"), "it goes unless there is a file that it is for"
    assert bench.disk.open_files == 0


def test_removing_takes_empty_directories_along_but_no_other():
    bench = ready()
    bench.put_file(b"other", B)
    first, second = places(bench).place([order("d/1/x"), order("d/2/x", B)])
    places(bench).remove(A, first, len(DATA))
    assert files(bench.disk) == {"d/2/x": b"other"} and set(bench.disk.names(f"{ROOT}/d")) == {"2"}
    places(bench).remove(B, second, 5)
    assert list(bench.disk.names(ROOT)) == []


@pytest.mark.parametrize("written", [FOREIGN, b"[]", b'{"id": "other"}', b"\xff"])
def test_a_sidecar_of_others_is_not_taken_for_ours(written):
    bench = ready()
    put(bench.disk, f"{ROOT}/x{SIDECAR}", written)
    (place,) = places(bench).place([order("x")])
    assert place.path == "x (2)"
    (place,) = places(bench).place([order("x", sidecar=False)])
    assert place.path == "x (2)", "it was placed already"
    places(bench).remove(A, place, len(DATA))
    assert tree(bench.disk) == {f"x{SIDECAR}": written}


def test_what_a_crash_left_half_done_is_cleared_away_at_the_start():
    bench = ready()
    put(bench.disk, f"/spool/.resumable/placing/{A}", b"half")
    again = ready(bench.disk.kill())
    assert list(again.disk.names("/spool/.resumable/placing")) == []


# -- on a real disk


@pytest.fixture
def real(tmp_path):
    (tmp_path / "out").mkdir()
    with RealBench(tmp_path / "spool") as bench:
        bench.until(bench.spool.put(A, 0, [DATA]))
        yield bench


def test_without_permissions_of_their_own_placed_files_are_for_the_servers_user(real, tmp_path):
    where = real.spool.places(str(tmp_path / "out"), Rules())
    before = os.umask(0)
    try:
        (place,) = where.place([order("2026/x.bin")])
    finally:
        os.umask(before)
    placed = tmp_path / "out" / place.path
    assert placed.stat().st_mode & 0o7777 == Path(f"{placed}{SIDECAR}").stat().st_mode & 0o7777 == 0o600
    assert placed.parent.stat().st_mode & 0o7777 == 0o700


def test_a_real_file_gets_permissions_whatever_the_umask(real, tmp_path):
    where = real.spool.places(str(tmp_path / "out"), Rules(file_mode=0o664, directory_mode=0o2775))
    before = os.umask(0o077)
    try:
        (place,) = where.place([order("2026/x.bin")])
    finally:
        os.umask(before)
    placed = tmp_path / "out" / place.path
    assert placed.read_bytes() == DATA
    assert placed.stat().st_mode & 0o7777 == 0o664
    assert Path(f"{placed}{SIDECAR}").stat().st_mode & 0o7777 == 0o664
    assert placed.parent.stat().st_mode & 0o7777 == 0o2775
    assert placed.samefile(tmp_path / "spool" / A)
    fd = where.open(place, len(DATA))
    os.close(fd)
    where.remove(A, place, len(DATA))
    assert list((tmp_path / "out").iterdir()) == [] and (tmp_path / "spool" / A).read_bytes() == DATA


@pytest.mark.parametrize("collision", Collision)
def test_symbolic_links_in_the_directory_lead_nowhere(real, tmp_path, collision):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(FOREIGN)
    (tmp_path / "out" / "way").symlink_to(outside)
    (tmp_path / "out" / "x").symlink_to(outside / "x")
    where = real.spool.places(str(tmp_path / "out"), Rules(collision=collision))
    (refused,) = where.place([order("way/y")])
    assert isinstance(refused, NotADirectoryError)
    modified = str((outside / "x").stat().st_mtime_ns)
    for path in ("way/x", "x"):
        assert where.open(Place(path, modified), len(FOREIGN)) is None
        where.remove(A, Place(path, modified), len(FOREIGN))
    where.place([order("x")])
    assert {each.name: each.read_bytes() for each in outside.iterdir()} == {"x": FOREIGN}


def test_a_pipe_or_a_directory_in_its_place_is_no_file_of_ours(real, tmp_path):
    where = real.spool.places(str(tmp_path / "out"), Rules())
    os.mkfifo(tmp_path / "out" / "x")
    (tmp_path / "out" / f"x (2){SIDECAR}").mkdir()
    (tmp_path / "out" / "x (3)").mkdir()
    (place,) = where.place([order("x")])
    assert place.path == "x (4)"
    for path in ("x", "x (3)"):
        assert where.open(Place(path, place.stamp), len(DATA)) is None


# -- names


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=400))
def test_names_fit_and_differ(name):
    found = list(candidates(name, A))
    assert len(found) == len(set(found)) == NUMBERS
    for each in found:
        assert each and len(each.encode()) <= MAX_NAME and "/" not in each


@pytest.mark.parametrize(
    "name,mark,expected",
    [
        ("report.pdf", " (2)", "report (2).pdf"),
        ("archive.tar.gz", " (2)", "archive.tar (2).gz"),
        ("README", " (2)", "README (2)"),
        (".profile", " (2)", ".profile (2)"),
        ("x" * 300 + ".jpg", "", "x" * (MAX_NAME - 4) + ".jpg"),
        ("é" * 300, " (9)", "é" * ((MAX_NAME - 4) // 2) + " (9)"),
        ("a." + "b" * 300, "", "a." + "b" * (MAX_NAME - 2)),
    ],
)
def test_the_extension_stays_at_the_end(name, mark, expected):
    assert fitted(name, mark) == expected
