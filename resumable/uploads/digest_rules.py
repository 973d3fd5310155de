"""Which digests of a whole upload are made, and what they keep from being finished.

Invariants: no upload whose bytes can be read is finished while it has another digest than its client has announced;
files are hashed by the spool's threads, few at a time and in steps, so that bodies are written between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attrs import evolve, field, frozen
from twisted.internet.defer import DeferredSemaphore

from resumable.model.upload import Upload
from resumable.protocol import digests
from resumable.protocol.digests import Hashes
from resumable.protocol.errors import Stopping, Unavailable
from resumable.spool.datafile import NotReadable, SpoolDamaged
from resumable.spool.interfaces import ISpool
from resumable.spool.reader import Reader

AT_ONCE: Final = 2
"""Steps at once, in each process, of hashing that requests wait for. Uploads take turns at them, so that a small one
doesn't wait for all of a large one. One more step is in the background."""
STEP: Final = 4 << 20
"""Bytes for which hashing holds a thread."""

PIECE: Final = 256 * 1024
"""Bytes of a tail, a few megabytes at most, that are hashed at once, in the reactor."""


@frozen
class DigestRules:
    """``algorithm``: the one by which each new upload gets a digest, a key of `digests.ALGORITHMS`; None: none does.
    ``readable``: whether all bytes of unfinished uploads can be read. ``turns``: at steps that requests wait for."""

    algorithm: str | None = None
    readable: bool = True
    turns: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(AT_ONCE))

    @staticmethod
    def along(upload: Upload) -> Sequence[str]:
        """The algorithms by which bytes are hashed before the upload is finished: those of digests that were announced
        and aren't known, and of the one that is due."""
        lacking = digests.lacking(upload.announced, upload.digest)
        due = upload.digest_due
        return lacking if due is None or due in lacking else [*lacking, due]

    @staticmethod
    def settled(upload: Upload) -> bool:
        """Whether nothing that its client has announced of the upload keeps it from being finished."""
        return digests.is_settled(upload.announced, upload.digest)

    @staticmethod
    def finishing(after: Upload) -> Upload:
        """The record of an upload that is finished with it; what was announced, and couldn't be looked at, is due."""
        if after.digest_due is not None:
            return after if after.digest is None else evolve(after, digest_due=None)
        lacking = () if after.announced is None else digests.lacking(after.announced, after.digest)
        return evolve(after, digest_due=lacking[0]) if lacking and after.digest is None else after


async def hashed(
    spool: ISpool,
    sources: Sequence[tuple[str, int]],
    algorithms: Sequence[str],
    stopping: Callable[[], bool],
    turns: DeferredSemaphore,
) -> str | None:
    """The text of these digests of the bytes of ``sources``, (upload id, length), one after the other.

    Raises Stopping, Unavailable, OSError.
    """
    hashes = Hashes(algorithms)
    for upload_id, size in sources:
        if size:
            try:
                await scan(await spool.reader(upload_id), upload_id, size, hashes, stopping, turns)
            except SpoolDamaged as damage:  # the next look at the upload says what becomes of it
                raise Unavailable("The upload's bytes can't be read at the moment.") from damage
    return hashes.text(algorithms)


async def hashed_tail(spool: ISpool, upload_id: str, size: int, algorithms: Sequence[str]) -> str | None:
    """The same of an unfinished upload in a store, which gives back no parts; None: some of its bytes are in one.

    Raises OSError.
    """
    hashes, offset = Hashes(algorithms), 0
    while offset < size:
        try:
            data = await spool.read(upload_id, offset, min(PIECE, size - offset))
        except NotReadable:
            return None
        hashes.update(data)
        offset += len(data)
    return hashes.text(algorithms)


async def scan(
    reader: Reader,
    upload_id: str,
    size: int,
    hashes: Hashes,
    stopping: Callable[[], bool],
    turns: DeferredSemaphore | None = None,
) -> None:
    """Feed the first ``size`` bytes to ``hashes``, and close the reader. Raises Stopping, SpoolDamaged, OSError."""
    offset = 0
    try:
        while offset < size:
            if turns is not None:
                await turns.acquire()
            try:
                if stopping():
                    raise Stopping()
                fed = await reader.scan(offset, min(STEP, size - offset), hashes.update)
            finally:
                if turns is not None:
                    turns.release()
            if not fed:
                raise SpoolDamaged(upload_id, size, offset)
            offset += fed
    finally:
        reader.close()
