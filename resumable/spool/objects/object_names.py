"""Keys and names in the object store that is a spool.

Invariant: an upload's object is ``<prefix><id>``, a partial's ``<prefix>.partials/<id>``; everything else that is made
there is below ``<prefix>.tails/``, under a name that holds the worker's id and random bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import frozen

from resumable.model.keys import MAX_ID

TAILS: Final = ".tails/"
PARTIALS: Final = ".partials/"
OWN: Final = (TAILS[:-1], PARTIALS[:-1])
"""Directories below the prefix."""


@frozen
class ObjectNames:
    """Names for one worker. ``new_name`` gives random bits."""

    prefix: str
    worker_id: str
    new_name: Callable[[], str]

    def key(self, upload_id: str, is_partial: bool) -> str:
        """Of an upload's object. Raises ValueError for an id that no upload has."""
        if not upload_id or len(upload_id) > MAX_ID or "/" in upload_id or upload_id.startswith("."):
            raise ValueError(f"{upload_id!r} is no upload's id")
        return f"{self.prefix}{PARTIALS if is_partial else ''}{upload_id}"

    def new(self, upload_id: str) -> str:
        """Of an object for a part or a piece: nobody else has it, nor will have. As it is in the catalog, without the
        prefix."""
        return f"{TAILS}{upload_id}/{self.worker_id}-{self.new_name()}"

    def label(self) -> str:
        """Of a part or a piece that is no object."""
        return f"{self.worker_id}-{self.new_name()}"

    def object(self, name: str) -> str:
        """The key of the object of a part or a piece, by its name."""
        return f"{self.prefix}{name}"

    def called(self, name: str) -> str:
        """What `IObjectStore` calls a part, by its name in the catalog."""
        return self.object(name) if name.startswith(".") else name

    def token(self) -> str:
        """For an object that this worker makes."""
        return f"{self.worker_id}-{self.new_name()}"
