"""An upload directory with uploads in every state, whose records are moved; and what is in it, whoever has them."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from resumable.catalog.catalog_files import fresh_catalog, put_in_place
from resumable.catalog.postgres.postgres_connection import connector
from resumable.catalog.postgres.takeover import Takeover
from resumable.catalog.row_copies import TABLES, CatalogFile, Row
from resumable.daemon.move import RecordMove
from resumable.spool.disk import Disk
from resumable.spool.segments import SegmentDirectory
from resumable.spool.segments.segment_reader import read_pieces
from tests.postgres import database

Rows = Mapping[str, list[Row]]
OTHER_BOOT = "11111111-1111-1111-1111-111111111111"


def upload_id(number: int) -> str:
    return f"{number:032x}"


def data_of(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


class MovedDirectory:
    """``urls``: of the databases that its records were moved to."""

    def __init__(self, root: Path, url: str | None = None) -> None:
        self.root = root
        self.own = root / ".resumable"
        self.path = self.own / "catalog.sqlite3"
        self.url = url or database()
        self.lines: list[str] = []
        for name in ("finals", "orphans", "placing"):
            (self.own / name).mkdir(parents=True)
        put_in_place(fresh_catalog(str(self.path)), str(self.path), 0.0)

    def move(self, url: str | None = None, **options: Any) -> RecordMove:
        move = Takeover(connector(url or self.url))
        return RecordMove(str(self.root), move, tell=self.lines.append, **options)

    # -- what is in it

    def insert(self, table: str, **values: Any) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            holes = ", ".join("?" * len(values))
            connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({holes})", list(values.values()))

    def upload(self, number: int, offset: int, *, behind: int = 0, file: bool = True, **values: Any) -> str:
        """An upload whose file has ``behind`` bytes behind the offset."""
        one = upload_id(number)
        row: dict[str, Any] = {
            "id": one,
            "created_at": 1000.0 + number,
            "touched_at": 2000.1 + number,
            "length": 10_000,
            "offset": offset,
            "epoch": number % 5,
            "adoptable": offset,
            **values,
        }
        self.insert("uploads", **row)
        if file:
            (self.root / one).write_bytes(data_of(number, offset + behind))
        return one

    def finished(self, number: int, size: int, **values: Any) -> str:
        return self.upload(number, size, **{"length": size, "finished_at": 3000.5 + number, **values})

    def fill(self) -> None:
        """Uploads in every state."""
        self.upload(1, 0, file=False)
        self.upload(2, 0, metadata="filename ZmlsbQ==", owner="zo\u00eb \u4e16")
        self.upload(3, 5000, behind=700, adoptable=9000, boot_id=OTHER_BOOT)
        self.upload(4, 1, length=None, max_size=77_777)
        self.upload(5, 9999, behind=1, adoptable=10_000, boot_id=OTHER_BOOT, placed="> a/b c.pdf")
        self.finished(6, 6000)
        self.finished(7, 0)
        self.finished(8, 800, placed="> later/x.bin", required=1)
        self.finished(9, 900, placed="1700000000000000000 there/y.bin", dropped_at=4000.0, on_disk=0, file=False)
        self.finished(10, 1000, dropped_at=4001.0, settled_at=4000.5, stored_at=4000.5, required=2)
        self.upload(11, 1100, gone="expired", gone_at=5000.0)
        self.upload(12, 1200, gone="terminated", gone_at=5001.0, on_disk=0, file=False)
        self.upload(13, 1300, gone="lost", gone_at=5002.0)
        self._finals()
        self._replicas()
        self._events()

    def _finals(self) -> None:
        part = self.finished(20, 2000, concat="partial", settled_at=6000.0)
        unfinished = self.upload(21, 2100, concat="partial", length=4000)
        gone = self.finished(22, 2200, concat="partial", gone="terminated", gone_at=5003.0)
        waits = self.upload(
            *(23, 0), length=None, concat="final;/a /b", partials=f"{part} {unfinished} {gone}", file=False, asked="d1"
        )
        for one in (part, unfinished, gone):
            self.insert("pins", partial_id=one, final_id=waits)
        (self.own / "finals" / waits).write_bytes(b"half")
        made = self.finished(24, 2000, concat="final;/a", partials=part, asked="d2")
        self.insert("finals", key="d1", id=waits, said='{"method":"POST","x":"\\u0000\u4e16"}')
        self.insert("finals", key="d2", id=made, at=7000.25)
        self.insert("finals", key="d3", id=upload_id(99), at=7001.0, said='{"status":403}')

    def _replicas(self) -> None:
        more: dict[str, dict[str, Any]] = {
            "open": {"key": "k/1", "confirmed": 5, "needs": 8 << 20, "retry_at": 8000.5, "failing_since": 7999.0},
            "stored": {"key": "k/2", "confirmed": 800, "stored_at": 8001.0, "stored": '{"etag":"\\"x\\""}'},
            "parked": {"attempts": 9, "error": "403 Forbidden: no"},
            "ending": {"key": "k/3", "deletes": 1, "attempts": 2, "error": "it's \u4e16"},
        }
        common = {"confirmed": 0, "needs": 0, "run": "r1", "attempts": 0, "deletes": 0, "required": 1}
        for number, (state, values) in enumerate(more.items()):
            for remote in ("s3://bucket", "A-first"):
                row = {**common, "required": number % 2, "journal": f'{{"upload_id":"{number}"}}', **values}
                self.insert("replicas", upload_id=upload_id(6 + number), remote=remote, state=state, **row)
            for remote in ("s3://bucket", "A-first", "a-last"):
                for part in (10, 2, 1):
                    value = f'{{"etag":"{part}"}}'
                    self.insert(
                        "replica_parts", upload_id=upload_id(6 + number), remote=remote, number=part, value=value
                    )

    def _events(self) -> None:
        for seq, state, more in (
            (3, "next", {}),
            (4, "behind", {}),
            (7, "dead", {"attempts": 7, "error": "gone", "dead_at": 9000.0}),
            (8, "next", {"attempts": 1, "error": "later", "retry_at": 9001.5}),
            (20, "next", {}),  # was delivered: the next one has a higher number all the same
        ):
            row = {"deliverer": f"hook{seq % 2}", "upload_id": upload_id(seq), "kind": "finished", "at": 8500.0}
            self.insert("outbox", seq=seq, data='{"id":"x"}', state=state, **row, **more)
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("DELETE FROM outbox WHERE seq = 20")

    def sqlite_rows(self) -> Rows:
        file = CatalogFile(str(self.path))
        try:
            return {table.name: list(file.rows(table)) for table in TABLES}
        finally:
            file.close()

    def postgres_rows(self, url: str | None = None) -> Rows:
        with Takeover(connector(url or self.url)).reading() as reading:
            return {table.name: list(reading.rows(table)) for table in TABLES}

    def sqlite_bytes(self) -> dict[str, bytes]:
        """The committed bytes of each upload that somebody may read."""
        return {
            row[1]: (self.root / row[1]).read_bytes()[: row[5]]
            for row in self.sqlite_rows()["uploads"]
            if _readable(row)
        }

    def postgres_bytes(self, url: str | None = None) -> dict[str, bytes]:
        names = SegmentDirectory(
            Disk(),
            str(self.root),
            installation="",
            worker_id="t",
            new_name=lambda: "x",  # type: ignore[arg-type]
        )
        with Takeover(connector(url or self.url)).reading() as reading:
            layouts = {each.layout.upload_id: each.layout for each in reading.stored()}
            rows = list(reading.rows(TABLES[0]))
        return {row[1]: read_pieces(names, layouts[row[1]], 0, row[5]) for row in rows if _readable(row)}

    def last_event(self) -> int:
        """The number that the next event gets, by whoever has the records, less one."""
        if self.path.exists():
            file = CatalogFile(str(self.path))
            try:
                return file.last_event()
            finally:
                file.close()
        with Takeover(connector(self.url)).reading() as reading:
            return reading.last_event()

    def marker(self) -> str | None:
        path = self.own / "marker"
        return path.read_text().strip() if path.exists() else None

    def do(self, statement: str, *values: Any) -> list[Any]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            done = connection.execute(statement, values or None)  # type: ignore[arg-type]
            return done.fetchall() if done.description else []


def _readable(row: Row) -> bool:
    seq, one, _, _, length, offset, *_ = row
    del seq, one, length
    gone, on_disk, dropped, finished = row[10], row[-2], row[17], row[9]
    if gone == "lost" or dropped is not None or on_disk != 1 or not (offset or finished is not None):
        return False
    return gone is None or finished is not None


def in_child(work: Callable[[], None]) -> int:
    """Do it in a process of its own; the number of the signal that ended it, or 0."""
    pid = os.fork()
    if not pid:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
