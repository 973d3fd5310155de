"""Objects that go without what a client wrote of them, because the store won't have it.

One reason to change: when that is tried, and how it is remembered.

Invariant: what a client wrote into its metadata is a courtesy; no upload waits or is parked for it. The upload's id
stays, it is how we know our object. What the store has clearly refused is in the journal before it is asked again, and
what it took instead is there with the outcome, so retries and restarts ask for the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, Self, TypeVar

from twisted.logger import Logger

from resumable.remotes.errors import RemoteError, Unwelcome

_log = Logger()


class Plain(Protocol):
    """A record of a replica."""

    @property
    def key(self) -> str:
        """The object's."""

    def plainer(self) -> Self | None:
        """The next record with less of what the client wrote; None when nothing is left of it."""


P = TypeVar("P", bound=Plain)
T = TypeVar("T")


class Saving(Protocol[P]):
    """Where records are kept."""

    async def save(self, upload_id: str, record: P) -> P:
        """Make it durable."""


def stripped(headers: Mapping[str, str], custom: str, kept: str, plain: Mapping[str, str]) -> dict[str, str] | None:
    """Without all whose name begins with ``custom``, but for ``kept``; if there are none, ``plain`` and ``kept``; None
    if that is what there is."""
    rest = {name: value for name, value in headers.items() if not name.startswith(custom) or name == kept}
    if rest == headers:
        rest = {**plain, **({kept: headers[kept]} if kept in headers else {})}
    return None if rest == headers else rest


async def taken(
    records: Saving[P],
    upload_id: str,
    record: P,
    make: Callable[[P], Awaitable[T]],
    may_be: Callable[[RemoteError], bool],
) -> tuple[P, T]:
    """What ``make`` answers, which makes an object or begins one, and the record that was taken, to be saved with it.

    ``may_be``: whether this failure may be about the metadata, where the store hasn't said so. Raises what the last try
    failed with.
    """
    given, told = record, False
    while True:
        try:
            made = await make(given)
        except RemoteError as error:
            is_clear = isinstance(error, Unwelcome)
            plainer = given.plainer() if is_clear or may_be(error) else None
            if plainer is None:
                raise
            given, reason = plainer, error.reason
            if is_clear:
                given = await records.save(upload_id, plainer)
                told = told or _tell(upload_id, record, reason)
        else:
            if given is not record and not told:
                _tell(upload_id, record, reason)
            return given, made


def _tell(upload_id: str, record: Plain, reason: str) -> bool:
    _log.warn(
        "{key}: the store refuses what the client wrote into the metadata, so the object goes without: {reason}",
        upload=upload_id,
        key=record.key,
        reason=reason,
    )
    return True
