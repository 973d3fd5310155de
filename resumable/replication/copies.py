"""Stored copies of uploads, to read from.

Invariants: bytes come from replicas that are stored, required remotes first; when one fails, the next goes on at that
very byte, and no byte is given twice. While a reader rests nothing is kept open. Nothing here changes anything; a copy
that is missing is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from resumable.aio.deferreds import Timer, deferred
from resumable.model.errors import CatalogUnavailable
from resumable.model.replica import ICopy, IReplicas
from resumable.model.upload import Replica, ReplicaState
from resumable.protocol.errors import NotFound, Unavailable
from resumable.remotes.errors import NotThere, RemoteError, Throttled, Transient
from resumable.remotes.interfaces import IRemoteStorage
from resumable.remotes.reading import IObjectStream, IReadable, ISigning, Presented

log = Logger()

OPENING = 15.0
"""Seconds for one remote to begin to answer, before the next is asked."""
RESTING = 30.0
"""Seconds without a read after which the remote's answer is given up; the next read asks again from there."""
RETRY_AFTER = 5
"""Seconds that a client is asked to wait where no remote said otherwise."""


class Copies:
    """All stored copies. ``backends``: by the names of their remotes."""

    def __init__(self, backends: Mapping[str, IRemoteStorage], replicas: IReplicas, clock: IReactorTime) -> None:
        self._backends = backends
        self._replicas = replicas
        self._clock = clock

    @deferred
    async def open(self, upload_id: str, start: int, size: int) -> ICopy:
        """See IReplication.open_copy."""
        sources = [each for each in await self._stored(upload_id) if IReadable.providedBy(self._backends[each])]
        copy = Copy(upload_id, {name: IReadable(self._backends[name]) for name in sources}, start + size, self._clock)
        await copy.begin(start)
        return copy

    @deferred
    async def signed_url(self, upload_id: str, presented: Presented) -> str | None:
        """See IReplication.signed_url."""
        for name in await self._stored(upload_id):
            backend = self._backends[name]
            if not ISigning.providedBy(backend):
                continue
            try:
                signing: Deferred[str | None] = ISigning(backend).signed_url(upload_id, presented)
                url = await signing.addTimeout(OPENING, self._clock)
            except (RemoteError, TimeoutError) as error:
                log_failure(name, upload_id, _as_remote_error(error))
                continue
            if url is not None:
                return url
        return None

    async def _stored(self, upload_id: str) -> Sequence[str]:
        """The remotes that have it, in the order in which they are asked. Raises Unavailable."""
        try:
            found: Sequence[Replica] = await self._replicas.of(upload_id)
        except CatalogUnavailable as error:
            raise Unavailable("The server can't look up uploads at the moment.") from error
        stored = [each for each in found if each.state is ReplicaState.STORED and each.remote in self._backends]
        return [each.remote for each in sorted(stored, key=lambda each: not each.required)]


@implementer(ICopy)
class Copy:
    """The copies of one upload for one reader, which reads up to ``end``. ``sources``: by remote, the best first.
    ``tell`` logs the failure of a remote for an upload."""

    def __init__(
        self,
        upload_id: str,
        sources: Mapping[str, IReadable],
        end: int,
        clock: IReactorTime,
        tell: Callable[[str, str, RemoteError], None] | None = None,
    ) -> None:
        self._upload_id = upload_id
        self._tell = tell or log_failure
        self._sources = dict(sources)
        self._end = end
        self._clock = clock
        self._stream: IObjectStream | None = None
        self._remote = ""
        self._offset = 0
        self._rest = Timer(clock, self._release)
        self._under_way: Deferred[IObjectStream] | None = None
        self._closed = False

    async def begin(self, offset: int) -> None:
        """Find a remote that answers with the bytes from ``offset`` on. Raises NotFound, Unavailable."""
        pause = None
        lost: list[str] = []
        for name, source in list(self._sources.items()):
            try:
                self._stream = await self._opened(source, offset)
            except (RemoteError, TimeoutError) as problem:
                error = _as_remote_error(problem)
                self._tell(name, self._upload_id, error)
                self._later(name)
                lost += [name] if isinstance(error, NotThere) else []
                pause = error.retry_after if isinstance(error, Throttled) else pause
            else:
                self._remote, self._offset = name, offset
                return
        if len(lost) == len(self._sources):
            raise NotFound("The file is no longer on this server, and not in a remote that it can be read from.")
        raise Unavailable("The file can't be read from where it is stored at the moment.", int(pause or RETRY_AFTER))

    def close(self) -> None:
        """See ICopy."""
        self._closed = True
        self._release()
        if self._under_way is not None:
            self._under_way.cancel()

    @deferred
    async def read(self, offset: int, size: int) -> bytes:
        """See ICopy."""
        self._rest.clear()
        for _ in range(len(self._sources) + 1):
            if self._closed:
                raise CancelledError
            if self._stream is None or self._offset != offset:
                self._release()
                await self.begin(offset)
            assert self._stream is not None
            try:
                data = await self._stream.read()
                if not data or self._offset + len(data) > self._end:
                    raise Transient("the object ended before its end" if not data else "the object is too long")
            except RemoteError as error:
                self._tell(self._remote, self._upload_id, error)
                self._release()
                self._later(self._remote)
                continue
            self._offset += len(data)
            self._rest.set(RESTING)
            return data
        raise Unavailable("The file can't be read from where it is stored at the moment.", RETRY_AFTER)

    async def _opened(self, source: IReadable, offset: int) -> IObjectStream:
        self._under_way = source.read_object(self._upload_id, offset, self._end - offset)
        try:
            stream = await self._under_way.addTimeout(OPENING, self._clock)
        finally:
            self._under_way = None
        if self._closed:
            stream.close()
            raise CancelledError
        return stream

    def _later(self, name: str) -> None:
        """Ask this remote after the others from now on."""
        self._sources[name] = self._sources.pop(name)

    def _release(self) -> None:
        self._rest.clear()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


def _as_remote_error(error: Exception) -> RemoteError:
    return error if isinstance(error, RemoteError) else Transient(f"no answer within {OPENING:.0f} s", code="TimedOut")


def log_failure(remote: str, upload_id: str, error: RemoteError) -> None:
    """See `Copy`."""
    if isinstance(error, NotThere):
        log.error("a stored copy is not in {remote}: {reason}", remote=remote, upload=upload_id, reason=error.reason)
    else:
        log.warn("{remote} can't be read from: {reason}", remote=remote, upload=upload_id, reason=error.reason)
