"""How much identities have stored: the sums, their bounds, and the refusals of what passes them.

Invariant: an upload that isn't gone counts with its length if that is known, else with its committed offset, or with
what was reserved for it ahead, if that is more. Sizes are bytes.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from resumable.protocol.errors import TooLarge, TooManyRequests, UsedUp

RETRY_AFTER: Final = 60
"""Seconds; a full quota empties only when people remove or finish uploads."""


@frozen
class Quota:
    """``size``: bytes of all uploads; ``unfinished_size``: of unfinished ones; ``unfinished``: how many. None: any."""

    size: int | None = None
    unfinished_size: int | None = None
    unfinished: int | None = None


def too_many() -> TooManyRequests:
    """Too many uploads of somebody's are unfinished."""
    return TooManyRequests("Too many uploads are unfinished; finish some first.", RETRY_AFTER)


def never_fits() -> TooLarge:
    """It would not fit if nothing else was there."""
    return TooLarge("The upload is larger than all that may be stored.")


def does_not_fit() -> UsedUp:
    """It doesn't fit beside what is there."""
    return UsedUp("What may be stored is used up; remove or finish something first.", RETRY_AFTER)


class IUsage(Interface):
    """The sums in a catalog that several workers share. All fail with CatalogUnavailable as ICatalog does.

    The catalog counts each change of an upload in the transaction that makes it, and refuses the change (ICatalog's
    `create` and `commit` fail with TooLarge, NoSpace or TooManyRequests) if a sum passed its bound.
    """

    def reserve(upload_id: str, total: int, epoch: int) -> Deferred[bool]:
        """Until the last commit of an append the upload counts for ``total`` bytes at least, while its length isn't
        known. False: it is gone, or isn't there. Fails with Held if an append has taken it since ``epoch``, with
        TooLarge or NoSpace, and then counts as before."""

    def release(upload_id: str, epoch: int) -> Deferred[None]:
        """What was reserved for it counts no longer, unless an append has taken it since ``epoch``."""
