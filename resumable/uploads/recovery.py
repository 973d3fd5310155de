"""Recovery at start-up: the catalog and the data files that the last run left are brought together.

Invariant: after a crash the catalog's offset rules. Bytes past it are adopted only in the same boot and only as far
as their append had declared; a data file is never deleted here.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from resumable.catalog.catalog_files import OpenedCatalog
from resumable.catalog.sqlite import SqliteCatalog
from resumable.model.hooks import as_data, view
from resumable.model.upload import Fact, FactKind, Place, Upload
from resumable.protocol import rules
from resumable.spool import Spool


@frozen
class UploadsRecovered:
    """Numbers of uploads whose offset moved on, of files set aside, and of files that can't be proven."""

    adopted: int
    orphans: int
    lost: int


def recover(
    catalog: SqliteCatalog,
    opened: OpenedCatalog,
    spool: Spool,
    boot_id: str,
    now: float,
    *,
    asks: bool = False,
    planned: Callable[[Upload], Place | None] = lambda _: None,
) -> UploadsRecovered:
    """Blocks; before anything is served. Raises CatalogUnavailable, OSError.

    ``asks``: whether a hook has to be asked before an upload is finished. Then its last byte is not adopted: its
    client sends it again, and gets the hook's answer; and so it is where a digest was
    announced. ``planned``: where a finished upload is to go.
    """
    unknown = spool.listing()
    for upload_id in catalog.ids():
        unknown.discard(upload_id)
    lost = 0
    if opened.created or opened.set_aside is not None:
        # The record is not whole: these may have been acknowledged, and can't be proven.
        lost = catalog.record_lost(sorted(unknown), now)
        unknown = set()
    for upload_id in unknown:
        # Its record never was committed, so no client ever knew of it.
        spool.set_aside(upload_id)
    # A machine that can't name its boots can't tell a kill from a power loss.
    candidates = catalog.adoptable(boot_id) if boot_id else []
    adopted = sum(_adopt(catalog, spool, upload, now, asks, planned) for upload in candidates)
    return UploadsRecovered(adopted=adopted, orphans=len(unknown), lost=lost)


def _adopt(
    catalog: SqliteCatalog,
    spool: Spool,
    upload: Upload,
    now: float,
    asks: bool,
    planned: Callable[[Upload], Place | None],
) -> bool:
    # the draft: a request that didn't come to its end completes nothing
    withheld = asks or upload.announced is not None or upload.draft
    limit = upload.adoptable if upload.length is None else min(upload.adoptable, upload.length - withheld)
    offset = spool.adopt(upload.id, upload.offset, limit)
    if offset <= upload.offset:
        return False
    if not rules.finished(offset, upload.length):
        return catalog.adopted(upload.id, offset, now, ())
    after = evolve(upload, offset=offset, finished_at=now)
    facts = [Fact(FactKind.FINISHED, upload.id, now, as_data(view(after)))]
    return catalog.adopted(upload.id, offset, now, facts, planned(after))
