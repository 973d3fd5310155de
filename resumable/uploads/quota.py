"""What uploads count for: whoever keeps the books is told before bytes are taken, and may refuse them.

Reason to change: another moment of an upload's life counts. Invariant: an upload counts with its length if that is
known, else with its committed offset; in between, with what its append may still bring.
"""

from __future__ import annotations

from typing import Protocol

from resumable.model.upload import Upload


class IAccount(Protocol):
    """What one upload counts for, in bytes. Sums are kept elsewhere, so two of these for one upload do no harm."""

    def reach(self, total: int) -> None:
        """Room for ``total`` bytes of it altogether. Raises TooLarge (never) or NoSpace (not now)."""

    def settle(self, total: int) -> None:
        """That is what it counts for after all."""

    def finish(self) -> None:
        """It isn't unfinished any more. May be repeated."""

    def remove(self) -> None:
        """It counts for nothing any more. May be repeated."""


class IQuota(Protocol):
    """The books. Nothing of it waits for anything."""

    @property
    def counts(self) -> bool:
        """Whether anything is limited; if not, nothing needs to be told."""

    def open(self, name: str, length: int | None) -> IAccount:
        """A new upload of that name's. Raises TooLarge, NoSpace or TooManyRequests, and then counts nothing."""

    def counted(self, name: str, charged: int, *, finished: bool) -> IAccount:
        """One that counts already."""


class _Free:
    """Counts nothing."""

    def reach(self, total: int) -> None: ...

    def settle(self, total: int) -> None: ...

    def finish(self) -> None: ...

    def remove(self) -> None: ...


FREE = _Free()


class NoQuota:
    """Everything fits."""

    counts = False

    def open(self, name: str, length: int | None) -> IAccount:
        return FREE

    def counted(self, name: str, charged: int, *, finished: bool) -> IAccount:
        return FREE


def charge(upload: Upload) -> int:
    """What the record says that it counts for."""
    return upload.offset if upload.length is None else upload.length


def account_of(quota: IQuota, upload: Upload) -> IAccount:
    """The account of an upload that is recorded."""
    return quota.counted(upload.owner or "", charge(upload), finished=upload.finished)


def settle(account: IAccount, upload: Upload) -> None:
    """From now on it counts for what its record says."""
    account.settle(charge(upload))
    if upload.finished:
        account.finish()
