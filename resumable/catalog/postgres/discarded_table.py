"""On PostgreSQL: the table of names that no row has any more, of files or objects that are to be removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from resumable.catalog.jobs import CatalogTable, frees, reads
from resumable.catalog.postgres.postgres_connection import Connection
from resumable.catalog.postgres.postgres_schema import NOW
from resumable.model.segments import REMOVED_AFTER


def discarded_of(*tables: str) -> str:
    """The names, discarded long enough ago, that no row of these tables has."""
    return f"""SELECT name FROM discarded WHERE at <= {NOW} - {REMOVED_AFTER}
        AND {_in_none("discarded", tables)} ORDER BY at, name LIMIT ?"""


def unknown_of(*tables: str) -> str:
    """Those of the given names that neither these tables have nor ``discarded``."""
    return f"""SELECT name FROM unnest(?::text[]) WITH ORDINALITY AS given(name, number)
        WHERE {_in_none("given", (*tables, "discarded"))} ORDER BY number"""


def _in_none(of: str, tables: Sequence[str]) -> str:
    return " AND ".join(f"NOT EXISTS (SELECT 1 FROM {each} WHERE {each}.name = {of}.name)" for each in tables)


class DiscardedTable(CatalogTable):
    """What the tables of segments, and of parts and pieces, have in common."""

    DISCARDED: ClassVar[str]
    UNKNOWN: ClassVar[str]

    @reads
    def discarded(self, connection: Connection, limit: int) -> Sequence[str]:
        return [name for (name,) in connection.execute(self.DISCARDED, (limit,)).fetchall()]

    @frees
    def removed(self, connection: Connection, names: Sequence[str]) -> None:
        connection.execute("DELETE FROM discarded WHERE name = ANY(?)", (list(names),))

    @reads
    def unknown(self, connection: Connection, names: Sequence[str]) -> Sequence[str]:
        return [name for (name,) in connection.execute(self.UNKNOWN, (list(names),)).fetchall()]
