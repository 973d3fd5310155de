"""An object store in memory, as the spool uses one, that fails, forgets to answer, and does things late.

It keeps to the promises of `IObjectStore`, refuses what real stores refuse (small, unequal and too many parts), and has
three kinds of multiparts: with numbers as S3's, with names as Azure's blocks (``numbered=False``), and whose parts are
objects, as Google's compose (``part_objects=True``). Requests are done in the call itself, unless data or ``before``
waits.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote, urlencode

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resumable.remotes.errors import CannotCopy, Conflict, NotThere, Permanent, RemoteError, Transient
from resumable.remotes.interfaces import IRegion, Unfinished
from resumable.remotes.object_store import IObjectStore, Listed, Made, ObjectProperties, SentPart
from resumable.remotes.plan import PartLimits
from resumable.remotes.reading import BytesStream, IObjectStream, Presented
from resumable.remotes.regions import copy
from resumable.testing.memory_catalog import Fate

T = TypeVar("T")
SMALL = PartLimits(smallest_part=64, largest_part=1 << 20, parts=1000, largest_object=1 << 26)
"""Limits that tests reach without many bytes."""


@frozen
class KeptObject:
    """An object. ``blocks``: the names of the parts that it was made of, where these aren't numbered."""

    data: bytes
    changed_at: float
    version: str
    upload_id: str = ""
    token: str = ""
    metadata: Mapping[str, bytes] = field(factory=dict)
    blocks: Mapping[str, bytes] = field(factory=dict)


@define
class _Multipart:
    key: str
    properties: ObjectProperties
    started_at: float
    parts: dict[int, bytes] = field(factory=dict)


@implementer(IObjectStore)
class MemoryStore:
    """A bucket. ``now`` tells the time; the rest is as in `IObjectStore`.

    ``objects`` by key are a test's to read and change. ``sent`` counts requests by the method's name. ``fates`` says
    what becomes of the next requests, ``fates_of`` of the next ones of one method (these count first); those that read
    fail with any fate but LANDS. ``down``: all fail. ``before`` is called with the method's name and the key before
    each request, which waits for its answer.
    """

    def __init__(
        self,
        prefix: str = "",
        *,
        equal: bool = False,
        conditional: bool = True,
        numbered: bool = True,
        part_objects: bool = False,
        copies_ranges: bool = True,
        limits: PartLimits = SMALL,
        part_size: int = 256,
        lifetime: float | None = None,
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.prefix = prefix
        self.limits = evolve(limits, equal=equal or limits.equal)
        self.part_size = part_size
        self.conditional = conditional
        self.numbered = numbered and not part_objects
        self.part_objects = part_objects
        self.copies_ranges = copies_ranges
        self.lifetime = lifetime
        self.objects: dict[str, KeptObject] = {}
        self.sent: Counter[str] = Counter()
        self.fates: deque[Fate] = deque()
        self.fates_of: defaultdict[str, deque[Fate]] = defaultdict(deque)
        self.down = False
        self.before: Callable[[str, str], Awaitable[None]] | None = None
        self._now = now
        self._names = 0
        self._multiparts: dict[str, _Multipart] = {}
        self._blocks: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        self._late: list[Callable[[], object]] = []
        self._seen: tuple[Sequence[Listed], Sequence[Unfinished]] | None = None

    # -- for tests

    @property
    def stale(self) -> bool:
        """Whether lists show what there was when this was set."""
        return self._seen is not None

    @stale.setter
    def stale(self, stale: bool) -> None:
        """From now on."""
        self._seen = (self._listed(), self._unfinished()) if stale else None

    @property
    def late(self) -> int:
        """How many requests may land yet."""
        return len(self._late)

    @property
    def unfinished(self) -> Sequence[str]:
        """Keys of the multiparts, or blocks, that aren't complete."""
        return sorted([each.key for each in self._multiparts.values()] + [key for key in self._blocks])

    def land(self, which: int | None = None) -> int:
        """Let late requests try to land, all or this one; how many had an effect."""
        chosen = self._late if which is None else [self._late[which]]
        self._late = [] if which is None else self._late[:which] + self._late[which + 1 :]
        landed = 0
        for effect in chosen:
            try:
                effect()
                landed += 1
            except RemoteError:
                pass  # nobody hears of it
        return landed

    # -- IObjectStore

    def put(self, key: str, data: IRegion, properties: ObjectProperties, only_new: bool) -> Deferred[Made]:
        """See IObjectStore."""

        async def putting() -> Made:
            given = await _bytes(data)
            await self._look("put", key, only_new)
            return await self._send("put", key, lambda: self._make(key, given, properties, only_new))

        return Deferred.fromCoroutine(putting())

    def begin(self, key: str, properties: ObjectProperties) -> Deferred[str]:
        """See IObjectStore."""
        handle = f"{self._name()}:{properties.token}"
        if not self.numbered:
            return succeed(handle)

        def begun() -> str:
            self._multiparts[_id(handle)] = _Multipart(key, properties, self._now())
            return handle

        return self._sent("begin", key, begun)

    def write_part(self, key: str, handle: str, number: int, name: str, data: IRegion) -> Deferred[str]:
        """See IObjectStore."""

        async def writing() -> str:
            given = await _bytes(data)
            return await self._send("write_part", key, lambda: self._write_part(key, handle, number, name, given))

        return Deferred.fromCoroutine(writing())

    def copy_part(
        self, key: str, handle: str, number: int, name: str, source: str, start: int, size: int
    ) -> Deferred[str]:
        """See IObjectStore."""

        def copied() -> str:
            kept = self.objects.get(source)
            if kept is not None and not self.copies_ranges and (start or size != len(kept.data)):
                raise CannotCopy("only whole objects are copied")
            return self._write_part(key, handle, number, name, self._read(source, start, size))

        return self._sent("copy_part", key, copied)

    def complete(
        self, key: str, handle: str, properties: ObjectProperties, parts: Sequence[SentPart], only_new: bool
    ) -> Deferred[Made]:
        """See IObjectStore."""

        async def completing() -> Made:
            await self._look("complete", key, only_new)
            given = evolve(properties, token=self.token_of(handle))
            return await self._send("complete", key, lambda: self._complete(key, handle, given, parts, only_new))

        return Deferred.fromCoroutine(completing())

    def token_of(self, handle: str) -> str:
        """See IObjectStore."""
        return handle.partition(":")[2]

    def abandon(self, key: str, handle: str, names: Sequence[str]) -> Deferred[None]:
        """See IObjectStore."""

        def abandoned() -> None:
            self._multiparts.pop(_id(handle), None)
            for name in names:
                if self.part_objects:
                    self.objects.pop(name, None)
                elif key in self._blocks:
                    self._blocks[key].pop(name, None)
            if not self._blocks.get(key, True):
                del self._blocks[key]

        return self._sent("abandon", key, abandoned)

    def find(self, key: str) -> Deferred[Made | None]:
        """See IObjectStore."""
        return self._asked("find", key, lambda: self._made(key) if key in self.objects else None)

    def write(self, name: str, data: IRegion) -> Deferred[None]:
        """See IObjectStore."""

        async def writing() -> None:
            given = await _bytes(data)
            await self._send("write", name, lambda: self._keep(name, given))

        return Deferred.fromCoroutine(writing())

    def open(self, key: str, start: int, size: int) -> Deferred[IObjectStream]:
        """See IObjectStore."""
        return self._asked("open", key, lambda: BytesStream(self._read(key, start, size)))

    def remove(self, keys: Sequence[str]) -> Deferred[None]:
        """See IObjectStore."""
        if len(keys) > 1000:
            raise ValueError("at most 1,000 at a time")

        def removed() -> None:
            for key in keys:
                self.objects.pop(key, None)

        return self._sent("remove", ",".join(keys), removed) if keys else succeed(None)

    def signed_url(self, key: str, presented: Presented) -> Deferred[str | None]:
        """See IObjectStore."""
        fields = {"type": presented.content_type, "disposition": presented.disposition}
        return succeed(f"https://memory.invalid/{quote(key)}?{urlencode(fields)}")

    def list(self, prefix: str, after: str, limit: int) -> Deferred[Sequence[Listed]]:
        """See IObjectStore."""

        def listed() -> Sequence[Listed]:
            seen = self._listed() if self._seen is None else self._seen[0]
            return [each for each in seen if each.key.startswith(prefix) and each.key > after][:limit]

        return self._asked("list", prefix, listed)

    def list_unfinished(self, limit: int, after: Unfinished | None) -> Deferred[Sequence[Unfinished]]:
        """See IObjectStore."""

        def listed() -> Sequence[Unfinished]:
            seen = self._unfinished() if self._seen is None else self._seen[1]
            last = (after.key, after.handle) if after else ("", "")
            ours = [each for each in seen if each.key.startswith(self.prefix)]
            return [each for each in ours if (each.key, each.handle) > last][:limit]

        return self._asked("list_unfinished", self.prefix, listed)

    def works_with(self, handle: str, found: Unfinished) -> bool:
        """See IObjectStore."""
        return _id(handle) == found.handle

    def drop(self, found: Unfinished) -> Deferred[None]:
        """See IObjectStore."""

        def dropped() -> None:
            self._multiparts.pop(found.handle, None)

        return self._sent("drop", found.key, dropped)

    def probe(self) -> Deferred[None]:
        """See IProbe."""
        return self._asked("probe", self.prefix, lambda: None)

    def close(self) -> Deferred[None]:
        """See IObjectStore."""
        return succeed(None)

    # -- how requests go

    def _sent(self, operation: str, key: str, effect: Callable[[], T]) -> Deferred[T]:
        return Deferred.fromCoroutine(self._send(operation, key, effect))

    def _asked(self, operation: str, key: str, answer: Callable[[], T]) -> Deferred[T]:
        return Deferred.fromCoroutine(self._send(operation, key, answer, reads=True))

    async def _send(self, operation: str, key: str, effect: Callable[[], T], reads: bool = False) -> T:
        """One request, and what becomes of it."""
        self.sent[operation] += 1
        if self.before is not None:
            await self.before(operation, key)
        fates = self.fates_of.get(operation) or self.fates
        fate = Fate.FAILS if self.down else fates.popleft() if fates else Fate.LANDS
        if fate is Fate.LANDS:
            return effect()
        if fate is not Fate.FAILS and not reads:
            self._late.append(effect)
            if fate is Fate.UNHEARD:
                self.land(len(self._late) - 1)
        error = Transient(f"{operation}: nobody knows what became of it")
        error.undone = fate is Fate.FAILS
        raise error

    async def _look(self, operation: str, key: str, only_new: bool) -> None:
        """Where there are no conditions: others may come between this and what follows."""
        if only_new and not self.conditional:
            await self._send("find", key, lambda: self._check_new(key, True), reads=True)

    # -- what they do

    def _name(self) -> str:
        self._names += 1
        return f"{self._names:08}"

    def _check_new(self, key: str, only_new: bool) -> None:
        if only_new and key in self.objects:
            raise Conflict(f'there is another object under "{key}"')

    def _make(
        self,
        key: str,
        data: bytes,
        properties: ObjectProperties,
        only_new: bool,
        blocks: Mapping[str, bytes] | None = None,
    ) -> Made:
        self._check_new(key, only_new and self.conditional)
        self._keep(key, data, properties, blocks)
        return self._made(key)

    def _keep(
        self,
        key: str,
        data: bytes,
        properties: ObjectProperties | None = None,
        blocks: Mapping[str, bytes] | None = None,
    ) -> None:
        given = properties or ObjectProperties("", "", {})
        self.objects[key] = KeptObject(
            data, self._now(), self._name(), given.upload_id, given.token, dict(given.metadata), blocks or {}
        )
        self._blocks.pop(key, None)

    def _made(self, key: str) -> Made:
        kept = self.objects[key]
        digest = _receipt(kept.data)
        return Made(key, len(kept.data), kept.token, kept.upload_id, digest, kept.version, f"sha256:{digest}")

    def _read(self, key: str, start: int, size: int) -> bytes:
        if key not in self.objects:
            raise NotThere(f'there is no object "{key}"')
        data = self.objects[key].data[start : start + size]
        if size < 1 or len(data) != size:
            raise NotThere(f'"{key}" is another object: it doesn\'t have these bytes')
        return data

    def _write_part(self, key: str, handle: str, number: int, name: str, data: bytes) -> str:
        if not 1 <= number <= self.limits.parts or not 1 <= len(data) <= self.limits.largest_part:
            raise Permanent(f"no part number {number} of {len(data)} bytes")
        if self.part_objects:
            self._keep(name, data)
        elif self.numbered:
            self._multipart(key, handle).parts[number] = data
        else:
            self._blocks[key][name] = data
        return _receipt(data)

    def _multipart(self, key: str, handle: str) -> _Multipart:
        found = self._multiparts.get(_id(handle))
        if found is None or found.key != key:
            raise NotThere("the multipart isn't known (any more)")
        return found

    def _complete(
        self, key: str, handle: str, properties: ObjectProperties, parts: Sequence[SentPart], only_new: bool
    ) -> Made:
        found = self._parts_of(key, handle, parts)
        self._check_new(key, only_new and self.conditional)
        for part, data in zip(parts, found, strict=True):
            if data is None or (len(data), _receipt(data)) != (part.size, part.receipt):
                raise Permanent(f"part {part.number} isn't the one that was confirmed", code="InvalidPart")
        self._check_sizes(parts)
        blocks = {} if self.numbered else {part.name: data or b"" for part, data in zip(parts, found, strict=True)}
        if self.numbered:
            begun = self._multiparts.pop(_id(handle)).properties
            properties = evolve(begun, token=self.token_of(handle))
        return self._make(key, b"".join(each or b"" for each in found), properties, only_new, blocks)

    def _parts_of(self, key: str, handle: str, parts: Sequence[SentPart]) -> Sequence[bytes | None]:
        """The bytes of each; NotThere: the multipart isn't known."""
        if self.numbered:
            have = self._multipart(key, handle).parts
            return [have.get(part.number) for part in parts]
        if self.part_objects:
            named = {part.name: self.objects[part.name].data for part in parts if part.name in self.objects}
        else:
            named = {**(self.objects[key].blocks if key in self.objects else {}), **self._blocks.get(key, {})}
        if any(part.name not in named for part in parts):
            raise NotThere("parts aren't known (any more)")
        return [named[part.name] for part in parts]

    def _check_sizes(self, parts: Sequence[SentPart]) -> None:
        """What real stores refuse."""
        numbers, sizes = [part.number for part in parts], [part.size for part in parts]
        if not parts or len(parts) > self.limits.parts or (self.numbered and numbers != sorted(set(numbers))):
            raise Permanent("parts without number or order", code="InvalidPartOrder")
        if any(size < self.limits.smallest_part for size in sizes[:-1]) or sum(sizes) > self.limits.largest_object:
            raise Permanent("a part is too small, or the object too large", code="EntityTooSmall")
        if self.limits.equal and (len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]):
            raise Permanent("all parts but the last have the same size", code="InvalidPart")

    def _listed(self) -> Sequence[Listed]:
        return [Listed(key, len(kept.data), kept.changed_at) for key, kept in sorted(self.objects.items())]

    def _unfinished(self) -> Sequence[Unfinished]:
        found = [Unfinished(each.key, handle, each.started_at) for handle, each in self._multiparts.items()]
        return sorted(found, key=lambda each: (each.key, each.handle))


async def _bytes(data: IRegion) -> bytes:
    pieces: list[bytes] = []

    async def add(start: int, piece: bytes) -> None:
        pieces.append(piece)

    await copy(data, add)
    return b"".join(pieces)


def _id(handle: str) -> str:
    return handle.partition(":")[0]


def _receipt(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
