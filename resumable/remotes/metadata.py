"""The client's metadata of an upload, as properties of an object.

Invariant: whatever the client wrote, the results of `described` and `in_ascii` are ASCII without line breaks, fit for
headers and signatures, and no more than the store is known to take. It is a courtesy: no upload waits or is parked for
it. The upload's id stays, it is how we know our object. A clear refusal of the store is in the journal before the
next try, and the properties that it took are there with the outcome, so retries and restarts send the same.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, Protocol, Self, TypeVar

from attrs import frozen
from twisted.logger import Logger

from resumable.protocol.metadata import filename
from resumable.protocol.names import disposition
from resumable.remotes.errors import RemoteError, Unwelcome

ID_METADATA = "resumable-upload-id"
"""Under this name every object has its upload's id, where the store's names may have hyphens."""
TOKEN_METADATA = "resumable-token"
"""And, where the store is the spool, the token of whoever made it: see `resumable.remotes.object_store`."""
PLAIN = "application/octet-stream"


@frozen
class MetadataRoom:
    """A store's limits: bytes of all names and values, the id's too; bytes of one value; how many; and how much it
    counts for each beside its name and value, as where names count with their prefix.
    """

    total: int
    value: int | None = None
    entries: int | None = None
    each: int = 0

    def fits(self, name: str, value: str, used: int, entries: int) -> bool:
        """Whether there is room for this beside ``entries`` others that take ``used`` bytes."""
        return (
            used + self.size(name, value) <= self.total
            and (self.value is None or len(value.encode()) <= self.value)
            and (self.entries is None or entries < self.entries)
        )

    def size(self, name: str, value: str) -> int:
        """The bytes that the store counts for this property."""
        return len(name.encode()) + len(value.encode()) + self.each


def described(metadata: Mapping[str, bytes]) -> dict[str, str]:
    """Content-Type, always, and Content-Disposition, where there is a file name."""
    kind = _first(metadata, "filetype", "contentType", "content-type", "type")
    if not re.fullmatch(r"[\w.+-]+/[\w.+-]+( *; *[\w.+-]+=[\w.+\"-]+)*", kind, re.ASCII) or len(kind) >= 256:
        kind = PLAIN
    name = filename(metadata)
    return {"Content-Type": kind, **({"Content-Disposition": disposition(name)} if name else {})}


def in_ascii(metadata: Mapping[str, bytes], room: MetadataRoom, ours: Mapping[str, str]) -> dict[str, str]:
    """The properties that fit beside ``ours``, in order of the names, which are in lower case."""
    return fitting({name: _ascii(value) for name, value in metadata.items()}, room, ours)


def fitting(texts: Mapping[str, str], room: MetadataRoom, ours: Mapping[str, str]) -> dict[str, str]:
    """The same of texts that may be sent as they are."""
    found: dict[str, str] = {}
    used = sum(room.size(name, value) for name, value in ours.items())
    for name in sorted(texts):
        plain, value = name.lower(), texts[name]
        if not re.fullmatch(r"[a-z0-9_-]{1,128}", plain) or plain in (ID_METADATA, TOKEN_METADATA) or plain in found:
            continue
        if room.fits(plain, value, used, len(ours) + len(found)):
            used += room.size(plain, value)
            found[plain] = value
    return found


def _first(metadata: Mapping[str, bytes], *names: str) -> str:
    return next((metadata[name].decode("utf-8", "replace").strip() for name in names if metadata.get(name)), "")


def _ascii(value: bytes) -> str:
    """The value itself where it can be signed and sent as it is; else as RFC 2047 writes it, as S3 would answer."""
    text = value.decode("latin-1")
    if re.fullmatch(r"[ -~]*", text) and text == " ".join(text.split()) and not text.startswith("=?"):
        return text
    return f"=?UTF-8?B?{b64encode(value).decode()}?="


_log = Logger()


class MetadataHolder(Protocol):
    """A record of a replica."""

    @property
    def key(self) -> str:
        """The object's."""

    def plainer(self) -> Self | None:
        """The next record with less of the client's metadata; None when nothing is left of it."""


P = TypeVar("P", bound=MetadataHolder)
T = TypeVar("T")


class RecordKeeper(Protocol[P]):
    """Where records are kept."""

    async def save(self, upload_id: str, record: P) -> P:
        """Make it durable."""


def stripped(headers: Mapping[str, str], custom: str, kept: str, plain: Mapping[str, str]) -> dict[str, str] | None:
    """The headers without those whose name begins with ``custom``, except ``kept``.

    If there are no such headers: ``plain`` and ``kept`` alone; None if nothing else was there.
    """
    rest = {name: value for name, value in headers.items() if not name.startswith(custom) or name == kept}
    if rest == headers:
        rest = {**plain, **({kept: headers[kept]} if kept in headers else {})}
    return None if rest == headers else rest


async def taken(
    records: RecordKeeper[P],
    upload_id: str,
    record: P,
    make: Callable[[P], Awaitable[T]],
    may_be: Callable[[RemoteError], bool],
) -> tuple[P, T]:
    """The answer of ``make``, which makes or begins an object, and the record that was taken, to be saved with it.

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


class Unkept(Generic[P]):
    """A keeper for those who have no journal."""

    async def save(self, upload_id: str, record: P) -> P:
        """See `RecordKeeper.save`; nothing is."""
        return record


def _tell(upload_id: str, record: MetadataHolder, reason: str) -> bool:
    _log.warn(
        "{key}: the store refuses what the client wrote into the metadata, so the object goes without: {reason}",
        upload=upload_id,
        key=record.key,
        reason=reason,
    )
    return True
