"""Placed files, as the use cases see them.

One reason to change: what the use cases need of placed files. Nothing here does any work.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from zope.interface import Interface, implementer

from resumable.model.upload import Place, Upload
from resumable.spool import Reader


class IPlaces(Interface):
    """Where finished files go. None of these raises at once."""

    def planned(upload: Upload) -> Place | None:
        """Where an upload is to go whose finish is about to be recorded; None: it stays under its id."""

    def chosen(upload: Upload, key: str) -> Place | None:
        """Where a new upload is to go for which a hook has chosen that key; None: as any other."""

    def wake(upload_id: str) -> None:
        """This upload is finished, and has a place to go to: see to it."""

    def sweep() -> None:
        """See to all that wait, those that have failed before included."""

    def reader(upload: Upload) -> Deferred[Reader | None]:
        """The placed file, open; None when it was moved, changed or removed. Fails with OSError."""

    def remove(uploads: Sequence[Upload]) -> Deferred[None]:
        """Remove what was placed of these, as far as it is still there and what it was. Never fails for one file."""


@implementer(IPlaces)
class NoPlaces:
    """Files stay under their ids."""

    def planned(self, upload: Upload) -> Place | None:
        return None

    def chosen(self, upload: Upload, key: str) -> Place | None:
        return None

    def wake(self, upload_id: str) -> None: ...

    def sweep(self) -> None: ...

    def reader(self, upload: Upload) -> Deferred[Reader | None]:
        return succeed(None)

    def remove(self, uploads: Sequence[Upload]) -> Deferred[None]:
        return succeed(None)
