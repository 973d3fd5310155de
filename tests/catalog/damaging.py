"""Damage to a catalog, and what is left of its content."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest

from resumable.catalog.batches import CatalogJob
from resumable.catalog.schema import PAGE_SIZE, find_upload
from resumable.catalog.sqlite import SqliteCatalog
from resumable.model.upload import Upload


def content(catalog: SqliteCatalog) -> dict[str, Upload]:
    """Everything in it, read by its own means."""
    found: dict[str, Upload] = catalog.jobs.now(CatalogJob(lambda connection: _all(connection)))
    return found


def spoil(path: str, *pages: int) -> None:
    with open(path, "r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE_SIZE)
            file.write(os.urandom(PAGE_SIZE))


def pages_of(path: str, tree: str, kind: str) -> list[int]:
    """The numbers of one tree's pages; the list is empty where SQLite was built without dbstat."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = ?"
        try:
            return [row[0] for row in connection.execute(query, (tree, kind))]
        except sqlite3.OperationalError:
            pytest.skip("this SQLite can't tell which page belongs to what (no dbstat)")


def _all(connection: sqlite3.Connection) -> dict[str, Upload]:
    found = [find_upload(connection, upload_id) for (upload_id,) in connection.execute("SELECT id FROM uploads")]
    return {one.id: one for one in found if one is not None}
