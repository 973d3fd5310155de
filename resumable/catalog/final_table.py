"""The tables of final uploads: which partials each still needs (``pins``), and the request that made each (``finals``).

Invariant: an unfinished final pins its partials until it is finished or gone; a request is known only together with
the upload that it has made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from sqlite3 import Connection
from typing import Any

from resumable.catalog.jobs import CatalogTable, frees, reads
from resumable.catalog.schema import ASKED_UNTIL, FIELDS, IS_SETTLED, PIN, to_json, to_upload, to_uploads
from resumable.model.upload import Asked, Upload

# A final waits for a partial that isn't finished, unless it can't be made any more.
_WAITS = """EXISTS (SELECT 1 FROM pins AS pin JOIN uploads AS part ON part.id = pin.partial_id
        WHERE pin.final_id = found.id AND part.finished_at IS NULL)
    AND NOT EXISTS (SELECT 1 FROM pins AS pin LEFT JOIN uploads AS part ON part.id = pin.partial_id
        WHERE pin.final_id = found.id AND (part.id IS NULL OR (part.gone IS NOT NULL AND part.finished_at IS NULL)))"""
_OF = "id = ?1 AND key = (SELECT asked FROM uploads WHERE id = ?1)"


class FinalTable(CatalogTable):
    """The part of ICatalog that is about final uploads and their partials."""

    # Steps of changes to an upload, within their transactions

    # The row of a request that is over is taken over by the next one.
    ASK = """INSERT INTO finals (key, id, said) VALUES (?, ?, ?)
        ON CONFLICT (key) DO UPDATE SET id = excluded.id, said = excluded.said, at = NULL
        WHERE finals.at IS NOT NULL"""

    def _ask(self, connection: Connection, final: Upload, request: Mapping[str, Any] | None) -> bool:
        """Remember the request that makes this final; False when another upload of the same request is on its way."""
        said = None if request is None else to_json(request)
        return connection.execute(self.ASK, (final.asked, final.id, said)).rowcount == 1

    GONE = "SELECT 1 FROM uploads WHERE id = ? AND gone IS NOT NULL"

    def _lacks_partials(self, connection: Connection, final: Upload) -> bool:
        return any(connection.execute(self.GONE, (partial,)).fetchone() for partial in set(final.partials))

    def _pin(self, connection: Connection, final: Upload) -> None:
        connection.executemany(PIN, [(partial, final.id) for partial in final.partials])

    PINNED = "SELECT partial_id FROM pins WHERE final_id = ?"
    USED = "UPDATE uploads SET settled_at = MAX(IFNULL(settled_at, 0), ?) WHERE id = ? AND gone IS NULL"
    UNPIN = "DELETE FROM pins WHERE final_id = ?"
    OVER = f"UPDATE finals SET at = ?2, said = ?3 WHERE {_OF}"

    def _made(self, connection: Connection, final_id: str, at: float) -> None:
        """The final, if it is one that waited, is finished: its partials are used."""
        pinned = connection.execute(self.PINNED, (final_id,)).fetchall()
        if pinned:
            connection.executemany(self.USED, [(at, partial) for (partial,) in pinned])
            connection.execute(self.UNPIN, (final_id,))
            connection.execute(self.OVER, (final_id, at, None))

    NOT_ASKED = f"DELETE FROM finals WHERE {_OF}"

    def _unmade(self, connection: Connection, final_id: str, at: float, refusal: Mapping[str, Any] | None) -> None:
        """The upload is gone; if it is a final, it pins nothing, and its request is forgotten or has this answer."""
        connection.execute(self.UNPIN, (final_id,))
        if refusal is None:
            connection.execute(self.NOT_ASKED, (final_id,))
        else:
            connection.execute(self.OVER, (final_id, at, to_json(refusal)))

    # ICatalog

    SPENT = f"""SELECT {FIELDS} FROM uploads WHERE {IS_SETTLED} AND settled_at <= ? AND required = 0
        AND NOT EXISTS (SELECT 1 FROM pins WHERE partial_id = uploads.id) ORDER BY settled_at LIMIT ?"""

    @reads
    def spent(self, connection: Connection, used_until: float, limit: int) -> Sequence[Upload]:
        return to_uploads(connection.execute(self.SPENT, (used_until, limit)).fetchall())

    FINALS_OF = f"""SELECT {FIELDS} FROM pins JOIN uploads ON uploads.id = pins.final_id
        WHERE pins.partial_id = ? AND pins.final_id > ? ORDER BY pins.final_id LIMIT ?"""

    @reads
    def finals_of(self, connection: Connection, partial_id: str, after: str, limit: int) -> Sequence[Upload]:
        return to_uploads(connection.execute(self.FINALS_OF, (partial_id, after, limit)).fetchall())

    PINNING = f"""SELECT id, {_WAITS} FROM (SELECT final_id AS id FROM pins WHERE partial_id = ?3 AND final_id > ?1
        ORDER BY final_id LIMIT ?2) AS found"""
    UNASSEMBLED = f"""SELECT id, {_WAITS} FROM (SELECT DISTINCT final_id AS id FROM pins INDEXED BY pins_by_final
        WHERE final_id > ?1 ORDER BY final_id LIMIT ?2) AS found"""

    @reads
    def assemblable(
        self, connection: Connection, after: str, limit: int, partial_id: str | None = None
    ) -> tuple[Sequence[str], str | None]:
        if partial_id is None:
            rows = connection.execute(self.UNASSEMBLED, (after, limit)).fetchall()
        else:
            rows = connection.execute(self.PINNING, (after, limit, partial_id)).fetchall()
        return [final_id for final_id, waits in rows if not waits], rows[-1][0] if len(rows) == limit else None

    ASKED = f"""SELECT {", ".join(f"uploads.{name}" for name in FIELDS.split(", "))},
        CASE WHEN finals.at IS NOT NULL THEN said END
        FROM finals JOIN uploads ON uploads.id = finals.id WHERE key = ?1 AND COALESCE({ASKED_UNTIL}, ?2) >= ?2"""

    @reads
    def asked(self, connection: Connection, digest: str, over_since: float) -> Asked | None:
        row = connection.execute(self.ASKED, (digest, over_since)).fetchone()
        return None if row is None else Asked(to_upload(row[:-1]), None if row[-1] is None else json.loads(row[-1]))

    REQUEST = """SELECT said FROM uploads JOIN finals ON finals.key = uploads.asked AND finals.id = uploads.id
        WHERE uploads.id = ? AND finals.at IS NULL"""

    @reads
    def request(self, connection: Connection, final_id: str) -> Mapping[str, Any] | None:
        row = connection.execute(self.REQUEST, (final_id,)).fetchone()
        found: Mapping[str, Any] | None = None if row is None or row[0] is None else json.loads(row[0])
        return found

    HEARD = "DELETE FROM finals WHERE key = ? AND at IS NOT NULL AND said IS NOT NULL"

    @frees
    def heard(self, connection: Connection, digest: str) -> None:
        connection.execute(self.HEARD, (digest,))

    FORGET_ASKED = f"""DELETE FROM finals WHERE key IN (SELECT key FROM finals
        LEFT JOIN uploads ON uploads.id = finals.id WHERE {ASKED_UNTIL} < ? LIMIT ?)"""

    @frees
    def forget_asked(self, connection: Connection, over_before: float, limit: int) -> int:
        return connection.execute(self.FORGET_ASKED, (over_before, limit)).rowcount
