"""Quotas: bytes and unfinished uploads, for each identity and in all.

Invariants: everything is counted in one step, before anything is awaited, so that parallel requests can't both have the
last byte. A refused request counts nothing. An upload whose length is known counts with all of it from its creation on,
any other with the bytes that have come, so that a deferred length gains nothing. A principal without uploads takes no
memory.

An upload's life: `Ledger.open` at its creation; later requests take a `Ledger.counted` from its record. Then `grow`
before bytes are taken, `settle` when an append has ended, `reach` when the length comes, `finish` and `remove` when the
upload has finished or gone. At the start, the uploads that are there go in by `Ledger.add`, a sum for each principal.
"""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred, succeed

from resumable.model.usage import Quota, does_not_fit, never_fits, too_many
from resumable.protocol.errors import TooLarge


@define
class Usage:
    """Sums of uploads, like `Quota`."""

    size: int = 0
    unfinished_size: int = 0
    unfinished: int = 0


class Ledger:
    """``each``: bounds of one identity. ``overall``: of all together. ``max_size``: bytes of any upload."""

    def __init__(self, each: Quota | None = None, overall: Quota | None = None, max_size: int | None = None) -> None:
        self._each = each or Quota()
        self._overall = overall or Quota()
        self._max_size = max_size
        self._used: dict[str, Usage] = {}
        self._used_overall = Usage()

    @property
    def counts(self) -> bool:
        """Whether anything is limited."""
        return (self._each, self._overall) != (Quota(), Quota()) or self._max_size is not None

    def usage(self, name: str | None) -> Usage:
        """Sums of that principal's uploads; None: of all uploads. A copy."""
        used = self._used_overall if name is None else self._used.get(name, Usage())
        return Usage(used.size, used.unfinished_size, used.unfinished)

    def open(self, name: str, length: int | None, upload_id: str = "", max_size: int | None = None) -> Reservation:
        """A new upload, ``length`` None while it's deferred. ``max_size``: bytes that its principal may store in one.
        The sums don't need its ``upload_id``.

        Raises TooLarge (it can never fit), NoSpace (not now), TooManyRequests (too many are unfinished).
        """
        reservation = Reservation(self, name, 0, self._largest(max_size))
        reservation.check(length or 0)
        for quota, used in self._accounts(name):
            if quota.unfinished is not None and used.unfinished >= quota.unfinished:
                raise too_many()
        self.charge(name, length or 0)
        self.add(name, 0, 0, 1)
        reservation.charged = length or 0
        return reservation

    def counted(
        self, name: str, charged: int, *, finished: bool, upload_id: str = "", max_size: int | None = None
    ) -> Reservation:
        """One that counts already: with its length if that is known, else with its offset."""
        return Reservation(self, name, charged, self._largest(max_size), finished=finished)

    def charge(self, name: str, count: int) -> None:
        """``count`` more unfinished bytes, if they fit. Raises NoSpace or TooLarge."""
        for quota, used in self._accounts(name):
            for limit, now in ((quota.size, used.size), (quota.unfinished_size, used.unfinished_size)):
                if limit is None or now + count <= limit or count == 0:
                    continue
                if count > limit:
                    raise never_fits()
                raise does_not_fit()
        self.add(name, count, count, 0)

    def add(self, name: str, size: int, unfinished_size: int, unfinished: int) -> None:
        """Count, up or down, whatever the limits are."""
        for used in (self._used.setdefault(name, Usage()), self._used_overall):
            used.size += size
            used.unfinished_size += unfinished_size
            used.unfinished += unfinished
        if self._used[name] == Usage():
            del self._used[name]

    def __len__(self) -> int:
        return len(self._used)

    def _largest(self, max_size: int | None) -> int | None:
        """The lower one of two maxima, None for no limit."""
        return min((size for size in (max_size, self._max_size) if size is not None), default=None)

    def _accounts(self, name: str) -> tuple[tuple[Quota, Usage], tuple[Quota, Usage]]:
        return (self._each, self._used.get(name, Usage())), (self._overall, self._used_overall)


class Reservation:
    """The share of one upload. ``charged``: bytes."""

    __slots__ = ("_finished", "_largest", "_ledger", "_removed", "charged", "name")

    def __init__(self, ledger: Ledger, name: str, charged: int, largest: int | None, *, finished: bool = False) -> None:
        self._ledger = ledger
        self._largest = largest
        self._finished = finished
        self._removed = False
        self.name = name
        self.charged = charged

    def check(self, total: int) -> None:
        """That an upload of ``total`` bytes is not too large whatever is free. Raises TooLarge."""
        if self._largest is not None and total > self._largest:
            raise TooLarge(f"The upload is larger than {self._largest} bytes.")

    def asks(self, total: int) -> bool:
        """No: `reach` knows."""
        return False

    def reserve(self, total: int, epoch: int, ahead: int = 0) -> Deferred[None]:
        """Nothing has to be reserved."""
        return succeed(None)

    def grow(self, count: int) -> None:
        """Room for ``count`` bytes more, before they are taken; all of them or none. Raises TooLarge or NoSpace."""
        self.check(self.charged + count)
        self._ledger.charge(self.name, count)
        self.charged += count

    def reach(self, total: int) -> None:
        """Room for ``total`` bytes of it altogether; nothing to do for less than it has. Raises like `grow`."""
        if total > self.charged:
            self.grow(total - self.charged)

    def settle(self, total: int, epoch: int = 0) -> None:
        """That many bytes are there, or declared, after all; the rest of the charge is given back."""
        if not self._removed:
            change = total - self.charged
            self._ledger.add(self.name, change, 0 if self._finished else change, 0)
            self.charged = total

    def finish(self) -> None:
        """It isn't unfinished any more. May be repeated."""
        if not (self._finished or self._removed):
            self._finished = True
            self._ledger.add(self.name, 0, -self.charged, -1)

    def remove(self) -> None:
        """It is gone, and its bytes with it. May be repeated."""
        if not self._removed:
            unfinished = 0 if self._finished else 1
            self._ledger.add(self.name, -self.charged, -self.charged * unfinished, -unfinished)
            self._removed, self.charged = True, 0
