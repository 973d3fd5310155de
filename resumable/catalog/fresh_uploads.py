"""Records of uploads that were just made, for the request that follows: most clients send a PATCH right after the POST.

Invariant: what is answered here is what the table would answer. Only records that nothing but `begin`, `commit` and
`end` can change are kept: unfinished, with no bytes to adopt, neither partial nor final; one of these three changes on
its way ends that.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from resumable.model.upload import Upload

KEPT: Final = 1024
"""So many, a kilobyte each. More: clients that take their time find theirs; fewer: they cost a look at the disk."""


class FreshUploads:
    """Used in the reactor's thread."""

    def __init__(self) -> None:
        self._kept: dict[str, Upload] = {}
        self._coming: dict[str, Upload] = {}

    def get(self, upload_id: str) -> Upload | None:
        """The record as it is on the disk; None: ask there."""
        return self._kept.get(upload_id)

    def expect(self, upload: Upload, made: Deferred[bool]) -> None:
        """It is about to be made."""
        plain = upload.concat is None and not upload.partials and not upload.finished and upload.gone is None
        if plain and upload.adoptable == upload.offset and upload.id not in self._coming:
            self._coming[upload.id] = upload
            made.addBoth(self._made, upload)

    def changes(self, upload_id: str) -> None:
        """Something is about to change it."""
        self._coming.pop(upload_id, None)
        self._kept.pop(upload_id, None)

    def clear(self) -> None:
        """Answer nothing more."""
        self._coming.clear()
        self._kept.clear()

    def _made(self, made: bool | Failure, upload: Upload) -> bool | Failure:
        if self._coming.get(upload.id) is upload:
            del self._coming[upload.id]
            if made is True:
                self._kept[upload.id] = upload
                if len(self._kept) > KEPT:
                    del self._kept[next(iter(self._kept))]
        return made
