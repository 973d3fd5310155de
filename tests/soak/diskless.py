"""The soak of nodes without disks: what is different where acknowledged bytes are in an object store.

A dead node comes again with an empty run directory. Invariant: at the end nothing is under the prefix that no row
names, once a day has passed; what is finished and not removed is there, with the bytes that were sent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from tests.e2e.daemon import ROOT, environment
from tests.e2e.diskless import ALL_OPERATIONS
from tests.e2e.stores import CREDENTIALS, Store
from tests.e2e.tus import sha256

from . import shared_watch
from .fleet import DisklessFleet, Fleet, Postgres
from .ledger import Promise
from .moments import MOMENTS
from .shared import SharedAuditor, SharedSoak

HELD: Final = """(SELECT upload_id, start, size, name FROM parts
    UNION ALL SELECT upload_id, start, size, name FROM pieces)"""
KEPT: Final = "SELECT pid, uploads.id FROM uploads JOIN workers ON kept_by = workers.id WHERE gone IS NULL"
OWN_OBJECTS: Final = (".ready", ".resumable")
"""What looks at whether the store is there may leave."""


class DisklessAuditor(SharedAuditor):
    """Downloads are all there is to look at; the object itself is compared with what was sent."""

    def _look(self, promise: Promise) -> None:
        assert sha256(self._store.content(self._prefix, promise.id)) == promise.digest, "another object is stored"

    def _state(self, promise: Promise) -> str:
        """No remote has to have it: finished is all there is."""
        found = super()._state(promise)
        return "stored" if found == "finished" else found


class DisklessSoak(SharedSoak):
    """See `SharedSoak`."""

    operations = ALL_OPERATIONS
    told = ("created", "finished", "stored")
    auditors = 6
    pooled = 24
    """Whoever removes asks the store for 16 uploads at once, and its rounds go on at a rest."""
    may_grow = 32 << 20
    """A batch with the bytes of pieces is a message of many megabytes, whose memory may stay with the process."""
    stores = ("versitygw", "moto")  # rclone drops a multipart whose completion has failed
    rules: ClassVar[Mapping[str, str]] = {
        **{what: rule for what, rule in shared_watch.RULES.items() if "segments" not in rule},
        "has parts and pieces that are not its offset": f"""SELECT id FROM uploads
            LEFT JOIN {HELD} held ON upload_id = id
            WHERE NOT whole AND on_disk = 1 AND gone IS NULL AND dropped_at IS NULL AND partials IS NULL
            GROUP BY id, "offset"
            HAVING COALESCE(sum(size), 0) <> "offset" OR COALESCE(max(start + size), 0) <> "offset" """,
        "is whole, and has parts or pieces": f"SELECT id FROM uploads JOIN {HELD} held ON upload_id = id WHERE whole",
        "is of no upload": f"SELECT name FROM {HELD} held WHERE NOT EXISTS (SELECT FROM uploads WHERE id = upload_id)",
        "is named, and to be removed": f"SELECT name FROM {HELD} held JOIN discarded USING (name)",
        "has part numbers that don't ascend": """SELECT one.upload_id FROM parts one JOIN parts two
            ON one.upload_id = two.upload_id AND one.start < two.start AND one.number >= two.number
            JOIN uploads ON id = one.upload_id""",
    }
    tables = (
        "uploads WHERE gone IS NULL OR on_disk = 1", "parts", "pieces", "discarded", "pins", "finals", "replicas",
        "outbox", "workers", "claims", "usage",
    )  # fmt: skip
    emptied = ("parts", "pieces", "discarded", "pins", "outbox")
    moments: ClassVar[Mapping[str, str]] = {
        **{each: MOMENTS[each] for each in ("body", "commit", "withheld", "assembly")},
        "part": KEPT,
        "piece": KEPT,
        "complete": """SELECT pid, uploads.id FROM claims JOIN workers ON holder = workers.id
            JOIN uploads ON name = 'join:' || uploads.id WHERE NOT whole""",
    }
    requests: ClassVar[Mapping[str, Sequence[str]]] = {
        "part": ("UploadPart",),
        "piece": ("PutObject",),
        "complete": ("CompleteMultipartUpload", "PutObject"),
    }
    baits: ClassVar[Mapping[str, str]] = {"assembly": "large_finals", "complete": "halves", "part": "halves"}

    def _fleet(self, database: Postgres, url: str, flags: Sequence[str]) -> Fleet:
        self._url = url
        # what was begun and lost is found a day later, so its upload must be known then
        return DisklessFleet(database, self._scratch, "--spool", url, *flags, "--remember", "7d", env=CREDENTIALS)

    def _auditor(self, fleet: Fleet, store: Store, prefix: str, seed: int, port: int) -> SharedAuditor:
        return DisklessAuditor(fleet, store, prefix, self.ledger, seed, port)

    def _unkept(self, store: Store, prefix: str) -> list[str]:
        """Of finished uploads: what is left of others goes later."""
        objects = store.objects(prefix)
        promises = self.ledger.promises
        missing = [f"{each.path}: not in the store" for each in promises if not each.gone and each.id not in objects]
        return missing + [f"{each.path}: still in the store" for each in promises if each.gone and each.id in objects]

    def _leftovers(self, fleet: Fleet, store: Store, prefix: str) -> None:
        """A day and more later only the objects of finished uploads are there."""
        before = len(store.objects(prefix)), len(store.multiparts(prefix))
        fleet.database.ask("UPDATE discarded SET at = at - 1000000 RETURNING 1")
        done = subprocess.run(
            [sys.executable, "-m", "tests.soak.sweep", fleet.database.url, self._url],
            cwd=ROOT,
            env={**environment(CREDENTIALS), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode:
            self.ledger.problem(f"the sweep after a day failed: {(done.stdout + done.stderr)[-2000:]}")
        objects, multiparts = store.objects(prefix), store.multiparts(prefix)
        self._say(f"objects and multiparts before a sweep: {before}, after it: {len(objects)}, {len(multiparts)}")
        known = {
            each
            for (each,) in fleet.database.ask("SELECT id FROM uploads WHERE whole AND gone IS NULL AND on_disk = 1")
        }
        names = {
            name for (name,) in fleet.database.ask(f"SELECT name FROM {HELD} held UNION SELECT name FROM discarded")
        }
        known.add(".marker")
        begun = {each for (each,) in fleet.database.ask("SELECT id FROM uploads WHERE multipart IS NOT NULL")}
        strange = [
            each
            for each in objects
            if each.removeprefix(".partials/") not in known and each not in names and each not in OWN_OBJECTS
        ]
        if self._plan.sweeps:
            self.ledger.problems += [f"{each}: no row names it" for each in strange[:10]]
            self.ledger.problems += [
                f"{each}: its multipart is left" for each in multiparts if each.removeprefix(".partials/") not in begun
            ]
        for promise in self.ledger.promises:
            if not promise.gone and promise.id not in objects:
                self.ledger.problem(f"{promise.id}: no object is under its id at the end")
            elif not promise.gone and sha256(store.content(prefix, promise.id)) != promise.digest:
                self.ledger.problem(f"{promise.id}: another object is under its id at the end")
        for daemon in fleet.daemons:
            files = [each for each in daemon.upload_dir.rglob("*") if each.is_file()]
            if files:
                self.ledger.problem(f"a node has written {files[:3]}")
