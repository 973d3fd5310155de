"""The records move between SQLite and PostgreSQL: nothing is lost or changed, wherever it is interrupted."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from resumable.catalog.postgres.catalog import PostgresCatalog
from resumable.catalog.postgres.postgres_connection import connector
from resumable.catalog.postgres.postgres_schema import MIGRATIONS
from resumable.catalog.postgres.takeover import Takeover
from resumable.catalog.row_copies import TABLES
from resumable.daemon import startup
from resumable.model.errors import CatalogUnavailable, StartupError
from resumable.spool.disk import Disk
from tests.catalog.doubles import HandBatcher
from tests.daemon.move_rig import MovedDirectory, data_of, in_child, upload_id
from tests.postgres import database
from tests.waiting import long

pytestmark = pytest.mark.process


@pytest.fixture
def moved(directory: Path) -> MovedDirectory:
    made = MovedDirectory(directory / "uploads")
    made.fill()
    return made


@pytest.fixture
def empty(directory: Path) -> MovedDirectory:
    return MovedDirectory(directory / "uploads")


def first_shape_starts(moved: MovedDirectory) -> bool:
    try:
        startup.check_directory(str(moved.root), Disk())  # type: ignore[arg-type]
    except StartupError:
        return False
    return moved.path.exists()


def second_shape_starts(moved: MovedDirectory, url: str | None = None) -> bool:
    """A worker with this database: what it looks at before it serves anything."""
    url = url or moved.url
    catalog = PostgresCatalog(connector(url), "w", batcher=lambda name, work: HandBatcher(work))
    try:
        startup.check_shared_directory(str(moved.root), Disk(), False)  # type: ignore[arg-type]
        found = catalog.open().installation
        with psycopg.connect(url) as connection:  # rolled back at the end
            connection.execute("INSERT INTO workers (id, node, pid) VALUES ('w', 'n', 1)")
            connection.rollback()
    except (StartupError, CatalogUnavailable, psycopg.Error):
        return False
    finally:
        catalog.stop()
    return moved.marker() == found


def test_the_tables_have_all_columns_of_sqlite_and_those_of_postgresql_but_its_own(moved: MovedDirectory) -> None:
    moved.move().to_postgres()
    with closing(sqlite3.connect(f"{moved.path}.moved")) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert names - {table.name for table in TABLES} == {"batches", "sqlite_sequence"}
        for table in TABLES:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")]
            assert set(columns) == set(table.columns)
    own = {"uploads": {"whole", "kept_by", "charged", "multipart", "reserved", "made"}, "replicas": {"holder", "looks"}}
    for table in TABLES:
        found = moved.do("SELECT column_name FROM information_schema.columns WHERE table_name = %s", table.name)
        assert {name for (name,) in found} - own.get(table.name, set()) == set(table.columns)


def test_uploads_in_every_state_move_there_and_back_and_there_again(moved: MovedDirectory) -> None:
    rows, content, last = moved.sqlite_rows(), moved.sqlite_bytes(), moved.last_event()
    assert last == 20
    for _ in range(2):
        moved.move().to_postgres()
        assert second_shape_starts(moved) and not first_shape_starts(moved)
        assert moved.postgres_rows() == rows
        assert moved.postgres_bytes() == content
        assert moved.last_event() == last
        assert not list((moved.own / "finals").iterdir())
        moved.move().to_sqlite()
        assert first_shape_starts(moved) and not second_shape_starts(moved)
        assert moved.sqlite_rows() == rows
        assert moved.sqlite_bytes() == content
        assert moved.last_event() == last
        assert not (moved.own / "segments").exists() and moved.marker() is None


def test_unfinished_uploads_become_segments_of_just_the_committed_bytes(moved: MovedDirectory) -> None:
    moved.move().to_postgres()
    found = dict(moved.do("SELECT upload_id, name FROM segments"))
    assert sorted(found) == [upload_id(number) for number in (3, 4, 5, 21)]
    assert (moved.own / "segments" / found[upload_id(3)]).read_bytes() == data_of(3, 5000 + 700)[:5000]
    assert (moved.own / "segments" / found[upload_id(5)]).read_bytes() == data_of(5, 10_000)[:9999]
    for number in (1, 2, 3, 4, 5, 21, 23):
        assert not (moved.root / upload_id(number)).exists()
    whole = {one for (one,) in moved.do("SELECT id FROM uploads WHERE whole")}
    assert whole == {upload_id(number) for number in (6, 7, 8, 10, 20, 22, 24)}


def test_new_rows_get_numbers_behind_those_that_came(moved: MovedDirectory) -> None:
    moved.move().to_postgres()
    (event,) = moved.do(
        "INSERT INTO outbox (deliverer, upload_id, kind, at, data) VALUES ('h', 'u', 'k', 1, '{}') RETURNING seq"
    )
    assert event == (21,)
    (replica,) = moved.do("SELECT nextval(pg_get_serial_sequence('replicas', 'seq'))")
    assert replica == (9,)


def test_bytes_that_had_arrived_in_this_boot_are_adopted_but_the_last_one(empty: MovedDirectory) -> None:
    boot = startup.boot_id()
    empty.upload(1, 100, behind=50, adoptable=150, boot_id=boot)
    empty.upload(2, 100, behind=100, adoptable=200, length=200, boot_id=boot)
    empty.move().to_postgres()
    assert empty.do('SELECT id, "offset", finished_at FROM uploads ORDER BY id') == [
        (upload_id(1), 150, None),
        (upload_id(2), 199, None),
    ]
    assert empty.postgres_bytes() == {upload_id(1): data_of(1, 150), upload_id(2): data_of(2, 200)[:199]}


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO parts VALUES ('x', 0, 1, 1, 'n', '')",
        "INSERT INTO pieces VALUES ('x', 0, 1, '.n')",
        "UPDATE uploads SET made = '{}'",
    ],
)
def test_bytes_in_an_object_store_stay_with_postgresql(empty: MovedDirectory, change: str) -> None:
    empty.upload(1, 0, length=300)
    empty.move().to_postgres()
    empty.do(change)
    with pytest.raises(StartupError, match="in an object store"):
        empty.move().to_sqlite()
    assert not empty.path.exists() and second_shape_starts(empty)


def test_segments_of_all_kinds_become_one_file_each(empty: MovedDirectory) -> None:
    """Several segments, bytes behind what is counted, a file that is somebody else's under the id."""
    for number in range(1, 6):
        empty.upload(number, 0, length=300)
    empty.move().to_postgres()
    (installation,) = empty.do("SELECT id FROM installation")[0]
    assert empty.marker() == installation

    def segment(number: int, start: int, data: bytes, size: int, finished: bool = False) -> None:
        name = f"00/{upload_id(number)}.{start}-w-{number}{start}"
        path = empty.own / "segments" / name
        path.write_bytes(data)
        path.chmod(0o640)
        values = (upload_id(number), start, size, name)
        empty.do("INSERT INTO segments (upload_id, start, size, name) VALUES (%s, %s, %s, %s)", *values)
        empty.do(
            'UPDATE uploads SET "offset" = %s, adoptable = 300, boot_id = %s, finished_at = %s WHERE id = %s',
            *(start + size, startup.boot_id(), 5000.0 if finished else None, upload_id(number)),
        )

    segment(1, 0, b"a" * 100, 100)
    segment(1, 100, b"b" * 150, 50)
    segment(2, 0, b"c" * 120, 100)
    segment(3, 0, b"d" * 100, 100)
    segment(4, 0, b"e" * 100, 100)
    segment(4, 100, b"f" * 200, 200, finished=True)
    for number in (1, 3, 4, 5):
        (empty.root / upload_id(number)).write_bytes(b"x" * 300)
    empty.move().to_sqlite()
    content = {number: (empty.root / upload_id(number)).read_bytes() for number in range(1, 6)}
    assert content == {
        1: b"a" * 100 + b"b" * 50,
        2: b"c" * 100,
        3: b"d" * 100,
        4: b"e" * 100 + b"f" * 200,
        5: b"",
    }
    assert (empty.root / upload_id(1)).stat().st_mode & 0o777 == 0o640
    assert (empty.root / upload_id(3)).stat().st_nlink == 1


# -- interruptions


class Killer:
    """Kills the process when as many steps were done: those of the move, and changes of the disk."""

    def __init__(self, after: int) -> None:
        self.left = after

    def reached(self, step: str) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


CHANGES = ("link", "unlink", "rename", "truncate", "create_new", "sync_directory", "remove_directory", "fsync")


def fragile(killer: Killer) -> Any:
    """A disk, each change of which is a step. Of many syncs of directories only some are."""
    disk = Disk()
    syncs = 0

    def breaking(name: str) -> Callable[..., Any]:
        real = getattr(disk, name)

        def call(*args: Any, **more: Any) -> Any:
            nonlocal syncs
            bulk = name in ("sync_directory", "remove_directory") and "/segments/" in str(args[0])
            syncs += bulk
            if not bulk or syncs % 100 == 50:
                killer.reached(name)
            return real(*args, **more)

        return call

    for name in CHANGES:
        setattr(disk, name, breaking(name))
    return disk


def owners(moved: MovedDirectory) -> list[str]:
    """The shapes that start on the directory now."""
    found = {"first": first_shape_starts(moved), "second": second_shape_starts(moved)}
    return [shape for shape, starts in found.items() if starts]


def attempt(moved: MovedDirectory, way: str, after: int) -> bool:
    """Whether it came to its end before it was killed."""
    killer = Killer(after)
    move = moved.move(reached=killer.reached, disk=fragile(killer))
    return in_child(lambda: getattr(move, way)()) == 0


@pytest.mark.parametrize("way", ["to_postgres", pytest.param("to_sqlite", marks=long)])
def test_killed_at_any_step_the_same_command_goes_on_and_nothing_is_lost(moved: MovedDirectory, way: str) -> None:
    rows, content = moved.sqlite_rows(), moved.sqlite_bytes()
    back = {"to_postgres": "to_sqlite", "to_sqlite": "to_postgres"}[way]
    source, target = ("first", "second") if way == "to_postgres" else ("second", "first")
    if way == "to_sqlite":
        moved.move().to_postgres()
    steps, whole = 0, False
    while not whole:
        whole = attempt(moved, way, steps)
        if not whole:
            assert len(owners(moved)) <= 1, steps
            assert attempt(moved, way, 10**6)
        assert owners(moved) == [target], steps
        if way == "to_postgres":
            assert (moved.postgres_rows(), moved.postgres_bytes()) == (rows, content), steps
        else:
            assert (moved.sqlite_rows(), moved.sqlite_bytes()) == (rows, content), steps
        getattr(moved.move(), back)()
        assert owners(moved) == [source], steps
        steps += 1
    assert steps > 40


@pytest.mark.parametrize("way", ["to_postgres", "to_sqlite"])
def test_killed_at_any_step_the_opposite_command_takes_it_back(moved: MovedDirectory, way: str) -> None:
    rows, content = moved.sqlite_rows(), moved.sqlite_bytes()
    back = {"to_postgres": "to_sqlite", "to_sqlite": "to_postgres"}[way]
    source = "first" if way == "to_postgres" else "second"
    if way == "to_sqlite":
        moved.move().to_postgres()
    steps, whole = 0, False
    while not whole:
        whole = attempt(moved, way, steps)
        try:
            getattr(moved.move(), back)()
        except StartupError as error:  # it was as good as done
            assert "finish that with --to sqlite" in str(error)
            getattr(moved.move(), way)()
            getattr(moved.move(), back)()
        assert owners(moved) == [source], steps
        if source == "first":
            assert (moved.sqlite_rows(), moved.sqlite_bytes()) == (rows, content), steps
        else:
            assert (moved.postgres_rows(), moved.postgres_bytes()) == (rows, content), steps
        steps += 3
    assert steps > 40


@pytest.mark.parametrize("way", ["to_postgres", "to_sqlite"])
def test_killed_again_and_again_it_comes_to_an_end(moved: MovedDirectory, way: str) -> None:
    rows, content = moved.sqlite_rows(), moved.sqlite_bytes()
    if way == "to_sqlite":
        moved.move().to_postgres()
    after = 0
    while not attempt(moved, way, after):
        assert len(owners(moved)) <= 1
        after += 7
    if way == "to_postgres":
        assert (moved.postgres_rows(), moved.postgres_bytes()) == (rows, content)
    else:
        assert (moved.sqlite_rows(), moved.sqlite_bytes()) == (rows, content)


@pytest.mark.parametrize("way", ["to_postgres", "to_sqlite"])
def test_an_error_at_any_step_is_taken_back_or_went_too_far(moved: MovedDirectory, way: str) -> None:
    """A full disk at each change of it."""
    rows, content = moved.sqlite_rows(), moved.sqlite_bytes()
    if way == "to_sqlite":
        moved.move().to_postgres()
    source, target = ("first", "second") if way == "to_postgres" else ("second", "first")
    back = {"to_postgres": "to_sqlite", "to_sqlite": "to_postgres"}[way]

    class Full(Killer):
        def reached(self, step: str) -> None:
            self.left -= 1
            if self.left == -1:
                raise OSError(28, "No space left on device", "somewhere")

    after, failed, taken_back = 0, True, 0
    while failed:
        moved.lines.clear()
        try:
            getattr(moved.move(disk=fragile(Full(after))), way)()
            failed = False
        except OSError:
            after += 1
            if "nothing was moved: all is as it was" in moved.lines or owners(moved) == [source]:
                assert owners(moved) == [source], after
                taken_back += 1
            else:  # it had moved: the same command does the rest
                assert owners(moved) in ([], [target]), after
                getattr(moved.move(), way)()
                assert owners(moved) == [target], after
                getattr(moved.move(), back)()
    assert owners(moved) == [target] and after > taken_back > 10
    found = moved.postgres_rows() if target == "second" else moved.sqlite_rows()
    assert found == rows
    assert (moved.postgres_bytes() if target == "second" else moved.sqlite_bytes()) == content


def test_a_half_moved_directory_starts_nowhere_and_says_how_to_go_on(moved: MovedDirectory) -> None:
    assert not attempt(moved, "to_postgres", 12)
    marker = moved.marker()
    assert marker is not None and marker.startswith("moving ")
    for check in (
        lambda: startup.check_directory(str(moved.root), Disk()),  # type: ignore[arg-type]
        lambda: startup.check_shared_directory(str(moved.root), Disk(), False),  # type: ignore[arg-type]
    ):
        with pytest.raises(StartupError, match="half moved: repeat `resumable catalog move --to postgresql"):
            check()


def test_a_half_moved_directory_goes_on_to_no_other_database(moved: MovedDirectory) -> None:
    other = database()
    for after in (12, 10**6):
        assert attempt(moved, "to_postgres", after) is (after > 12)
        for move in (moved.move(other).to_postgres, moved.move(other).to_sqlite):
            with pytest.raises(StartupError, match="belong to another database"):
                move()


# -- failures


class WithoutLinks(Disk):
    """A file system that has no hard links."""

    def link(self, source: str, target: str, within: int | None = None) -> bool:
        raise PermissionError(1, "Operation not permitted", source)


def test_without_hard_links_the_files_are_copied(moved: MovedDirectory) -> None:
    rows, content = moved.sqlite_rows(), moved.sqlite_bytes()
    disk: Any = WithoutLinks()
    for _ in range(2):
        moved.move(disk=disk).to_postgres()
        assert (moved.postgres_rows(), moved.postgres_bytes()) == (rows, content)
        moved.move(disk=disk).to_sqlite()
        assert (moved.sqlite_rows(), moved.sqlite_bytes()) == (rows, content)
        assert not list((moved.own / "finals").iterdir())


def test_a_copy_that_differs_is_taken_back(moved: MovedDirectory) -> None:
    PostgresCatalog(connector(moved.url), None, batcher=lambda name, work: HandBatcher(work)).open()
    moved.do(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.attempts := 3; RETURN NEW; END $$"
    )
    moved.do("CREATE TRIGGER spoil BEFORE INSERT ON replicas FOR EACH ROW EXECUTE FUNCTION spoil()")
    with pytest.raises(CatalogUnavailable, match="the copy of the table replicas was read again, and differs"):
        moved.move().to_postgres()
    assert owners(moved) == ["first"] and moved.do("SELECT COUNT(*) FROM uploads") == [(0,)]


@pytest.mark.parametrize("landed", [False, True])
def test_a_lost_answer_to_the_commit_is_proven(
    moved: MovedDirectory, landed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = moved.sqlite_rows()
    real = Takeover.fill

    def fill(self: Takeover, *args: Any, reached: Callable[[str], None], **more: Any) -> None:
        def last(step: str) -> None:
            reached(step)
            if step == "before commit" and not landed:
                raise CatalogUnavailable("the connection is lost")

        real(self, *args, reached=last, **more)
        raise CatalogUnavailable("the connection is lost")

    with monkeypatch.context() as patch:
        patch.setattr(Takeover, "fill", fill)
        with pytest.raises(CatalogUnavailable, match="the connection is lost"):
            moved.move().to_postgres()
    assert owners(moved) == ([] if landed else ["first"])
    assert ("the same command again goes on" in moved.lines[-1]) is landed
    moved.move().to_postgres()
    assert owners(moved) == ["second"] and moved.postgres_rows() == rows


def test_while_the_outcome_is_not_known_nothing_starts(moved: MovedDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: Takeover) -> Any:
        raise CatalogUnavailable("the database is away")

    def reached(step: str) -> None:
        if step == "before commit":
            monkeypatch.setattr(Takeover, "look", away)
            raise CatalogUnavailable("the connection is lost")

    with pytest.raises(CatalogUnavailable, match="is not known: repeat the command when it answers"):
        moved.move(reached=reached).to_postgres()
    monkeypatch.undo()
    assert owners(moved) == []
    moved.move().to_postgres()
    assert owners(moved) == ["second"]


def test_a_second_move_at_the_same_time_is_refused(moved: MovedDirectory) -> None:
    refused: list[str] = []

    def reached(step: str) -> None:
        if step == "segments":
            with pytest.raises(StartupError) as caught:
                moved.move().to_sqlite()
            refused.append(str(caught.value))

    moved.move(reached=reached).to_postgres()
    assert len(refused) == 1 and "Another daemon uses the upload directory" in refused[0]


def test_long_moves_tell_how_far_they_are(empty: MovedDirectory) -> None:
    for number in range(1, 601):
        empty.insert(
            "uploads", id=upload_id(number), created_at=1, touched_at=1, offset=0, epoch=0, adoptable=0, length=1
        )
    clock = iter(range(0, 10**6, 2))
    empty.move(seconds=lambda: float(next(clock))).to_postgres()
    assert "  512 of 600 files looked at" in empty.lines
    assert "  512 of 600 rows of uploads" in empty.lines
    assert "  512 rows of uploads compared" in empty.lines


# -- mistakes


def test_sqlite_on_a_network_file_system_is_refused(moved: MovedDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    moved.move().to_postgres()
    monkeypatch.setattr("resumable.daemon.move.file_system", lambda path: "nfs4")
    with pytest.raises(StartupError, match=r"is on a network file system \(nfs4\), where SQLite"):
        moved.move().to_sqlite()
    assert owners(moved) == ["second"]


def test_a_damaged_catalog_is_refused(moved: MovedDirectory) -> None:
    with moved.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"x" * 4096)
    with pytest.raises(StartupError, match=r"^The catalog is damaged \(.*\): start the server once"):
        moved.move().to_postgres()
    assert moved.marker() is None


def test_a_database_with_uploads_is_refused(moved: MovedDirectory, directory: Path) -> None:
    other = MovedDirectory(directory / "other", moved.url)
    other.upload(1, 10)
    other.move().to_postgres()
    before = moved.sqlite_rows()
    with pytest.raises(StartupError, match="has records of 1 uploads: name one that is empty"):
        moved.move().to_postgres()
    assert owners(moved) == ["first"] and moved.sqlite_rows() == before


def test_a_database_in_use_is_refused(moved: MovedDirectory) -> None:
    moved.move().to_postgres()
    moved.do("INSERT INTO workers (id, node, pid) VALUES ('other', 'n', 1)")
    with pytest.raises(StartupError, match=r"Workers use that database.*: stop all servers"):
        moved.move().to_sqlite()
    assert owners(moved) == ["second"]
    moved.do("UPDATE workers SET seen_at = seen_at - 11")
    moved.move().to_sqlite()
    assert owners(moved) == ["first"]


def test_a_worker_that_was_just_starting_does_not_begin_after_the_move(moved: MovedDirectory) -> None:
    moved.move().to_postgres()
    moved.move().to_sqlite()
    with pytest.raises(psycopg.Error, match="moved to SQLite"):
        moved.do("INSERT INTO workers (id, node, pid) VALUES ('late', 'n', 1)")


def test_a_database_whose_records_went_back_takes_those_of_another_directory(
    moved: MovedDirectory, directory: Path
) -> None:
    moved.move().to_postgres()
    moved.move().to_sqlite()
    other = MovedDirectory(directory / "other", moved.url)
    other.upload(1, 10)
    rows = other.sqlite_rows()
    other.move().to_postgres()
    assert owners(other) == ["second"] and other.postgres_rows() == rows
    assert owners(moved) == ["first"]


def test_an_old_directory_of_the_target_is_not_taken_for_its_own(moved: MovedDirectory) -> None:
    """The database gets a new installation's id with the records."""
    moved.move().to_postgres()
    (first,) = moved.do("SELECT id FROM installation")
    moved.move().to_sqlite()
    moved.move().to_postgres()
    assert moved.do("SELECT id FROM installation") != [first]


def test_missing_bytes_are_told_before_anything_is_changed(moved: MovedDirectory) -> None:
    (moved.root / upload_id(6)).unlink()
    os.truncate(moved.root / upload_id(3), 4999)
    with pytest.raises(StartupError, match=f"Bytes of 2 uploads are missing .{upload_id(3)}, {upload_id(6)}"):
        moved.move().to_postgres()
    assert owners(moved) == ["first"]


def test_a_database_that_a_release_before_has_moved_may_be_used_again(moved: MovedDirectory) -> None:
    """Its tables become those of this release."""
    moved.move().to_postgres()
    moved.move().to_sqlite()
    moved.do("UPDATE installation SET version = 1")
    moved.do("DROP INDEX uploads_used, finals_by_time, outbox_fresh")
    moved.do("ALTER TABLE replicas DROP COLUMN looks")
    moved.do("ALTER TABLE workers DROP COLUMN signs")
    moved.do("DROP TABLE parts, pieces")
    moved.do("ALTER TABLE uploads DROP COLUMN multipart, DROP COLUMN reserved, DROP COLUMN made")
    moved.do("ALTER TABLE uploads DROP COLUMN draft, DROP COLUMN announced, DROP COLUMN digest")
    moved.do("ALTER TABLE installation DROP COLUMN marked")
    moved.move().to_postgres()
    assert moved.do("SELECT version, oldest FROM installation") == [(len(MIGRATIONS), 1)]


def test_missing_segments_are_told_and_the_records_stay(moved: MovedDirectory) -> None:
    moved.move().to_postgres()
    name = dict(moved.do("SELECT upload_id, name FROM segments"))[upload_id(3)]
    (moved.own / "segments" / name).unlink()
    with pytest.raises(StartupError, match="Bytes of 1 uploads are missing"):
        moved.move().to_sqlite()
    assert owners(moved) == ["second"]
    assert moved.lines[-1] == "nothing was moved: all is as it was"


def test_quotas_do_not_refuse_what_is_there_and_are_counted_at_the_next_start(moved: MovedDirectory) -> None:
    from resumable.catalog.postgres.usage_table import enforce
    from resumable.model.usage import Quota

    PostgresCatalog(connector(moved.url), None, batcher=lambda name, work: HandBatcher(work)).open()
    with connector(moved.url)() as raw:
        enforce(raw, Quota(size=10), Quota(unfinished=1))
    moved.move().to_postgres()
    with connector(moved.url)() as raw:
        assert enforce(raw, Quota(size=10), Quota(unfinished=1))


def test_what_is_done_is_told_and_twice_is_nothing(moved: MovedDirectory) -> None:
    moved.move().to_sqlite()
    moved.move().to_postgres()
    moved.move().to_postgres()
    assert moved.lines == [
        f"nothing to do: the records of {moved.root} are in SQLite",
        f"found 18 uploads in {moved.root}, 7 of them unfinished",
        "PostgreSQL has the records, read again and compared: 18 uploads, 3 pins, 3 finals, 8 replicas,"
        " 36 replica_parts, 4 outbox",
        f"nothing to do: the records of {moved.root} are in that PostgreSQL",
    ]
