"""Downloads where the spool is in an object store: a finished upload's object is its file.

Invariants: nothing is asked of the store before the catalog says that the object is there; exactly the wanted bytes are
asked for. See `resumable.replication.copies` for how they are read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.model.replica import ICopy
from resumable.model.stored import IStored
from resumable.model.upload import Upload
from resumable.remotes.errors import NotThere, RemoteError, Throttled, Transient
from resumable.remotes.object_store import IObjectStore
from resumable.remotes.reading import IObjectStream, IReadable, Presented
from resumable.replication.copies import OPENING, Copy, log_failure
from resumable.spool.interfaces import IStoredFile
from resumable.spool.objects.errors import LostObjects
from resumable.spool.objects.object_names import ObjectNames

log = Logger()

NAME: Final = "the spool"
"""The store in log lines."""
_DIGESTS: Final = {"crc32c": ("crc32c", 4), "md5": ("md5", 16), "sha256": ("sha-256", 32), "sha-256": ("sha-256", 32)}
"""What a store calls a checksum: its name in the registry of RFC 9530, and its bytes."""


@frozen
class ObjectFiles:
    """See `resumable.spool.interfaces.IStoredFiles`. ``when_whole``: answers whether the object of a finished upload is
    there, after so many seconds at the latest. ``clock`` measures spans. ``lost`` tells of those that vanished."""

    store: IObjectStore
    names: ObjectNames
    stored: IStored
    when_whole: Callable[[str, float], Deferred[bool]]
    clock: IReactorTime
    lost: LostObjects

    @deferred
    async def find(self, upload: Upload, seconds: float) -> IStoredFile | None:
        """See IStoredFiles. Fails with CatalogUnavailable."""
        layout = await self.stored.tail_of(upload.id)
        if layout is not None and not layout.whole and await self.when_whole(upload.id, seconds):
            layout = await self.stored.tail_of(upload.id)
        if layout is None or not layout.whole:
            return None
        key = self.names.key(upload.id, upload.is_partial)
        return ObjectFile(self.store, key, self.clock, self.lost, digest_field(layout.made))


@frozen
class ObjectFile:
    """See `resumable.spool.interfaces.IStoredFile`."""

    store: IObjectStore
    key: str
    clock: IReactorTime
    lost: LostObjects
    digest: str | None = None

    @deferred
    async def open_copy(self, upload_id: str, start: int, size: int) -> ICopy:
        """See IReplication. Opening is tried twice."""
        source = _Openings(self.store, self.key, self.lost)
        copy = Copy(upload_id, {NAME: source}, start + size, self.clock, _tell)
        await copy.begin(start)
        return copy

    @deferred
    async def signed_url(self, upload_id: str, content_type: str, disposition: str, lifetime: float) -> str | None:
        """See IReplication. None also where the store doesn't answer."""
        presented = Presented(content_type, disposition, lifetime)
        try:
            signing: Deferred[str | None] = self.store.signed_url(self.key, presented)
            return await signing.addTimeout(OPENING, self.clock)
        except (RemoteError, TimeoutError) as error:
            log.warn("no URL could be signed: {reason}", upload=upload_id, reason=str(error))
            return None


@implementer(IReadable)
@frozen
class _Openings:
    store: IObjectStore
    key: str
    lost: LostObjects

    @deferred
    async def read_object(self, upload_id: str, start: int, size: int) -> IObjectStream:
        """See IReadable."""
        try:
            return await self._opened(start, size)
        except NotThere:
            await self.lost.missed(upload_id, self.key)
            raise

    async def _opened(self, start: int, size: int) -> IObjectStream:
        try:
            return await self.store.open(self.key, start, size)
        except Throttled:
            raise
        except Transient:
            return await self.store.open(self.key, start, size)


def _tell(remote: str, upload_id: str, error: RemoteError) -> None:
    if not isinstance(error, NotThere):  # of that was told
        log_failure(remote, upload_id, error)


def digest_field(made: Mapping[str, Any] | None) -> str | None:
    """The value of Repr-Digest (RFC 9530) for what a store has said of an object: ``crc32c=:...:``.

    None: it has confirmed no checksum of all bytes, or one that isn't registered there. A checksum of the parts'
    checksums ends with their number ("-3"), and says nothing of the file.
    """
    algorithm, _, value = ((made or {}).get("checksum") or "").partition(":")
    name, size = _DIGESTS.get(algorithm.lower(), ("", 0))
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return f"{name}=:{base64.b64encode(digest).decode()}:" if name and len(digest) == size else None
