"""A bucket as the spool: an upload's parts are objects, and compose makes its object of them.

Invariants: each part is made by one request, never by a session, whose late chunk would become the upload's. Nothing
that others write or remove is composed: the objects in between have names of this attempt alone, behind that of the
first part. The store compares the CRC32C of what it gets, and we that of what it composes.
Sources: https://docs.cloud.google.com/storage/docs/composite-objects, .../json_api/v1/objects/compose and
.../storage/docs/batch
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from random import Random
from typing import Any, Final

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from resumable.aio.deferreds import deferred, side_by_side
from resumable.httpclient.client import HttpAnswer
from resumable.remotes.errors import AuthFailed, CannotCopy, NotThere, Permanent, RemoteError, Transient
from resumable.remotes.gcs.records import GcsObject, GcsObjectOptions, object_from
from resumable.remotes.gcs.requests import BAD_DIGEST, GcsRequests, error_from, may_be_metadata, may_not
from resumable.remotes.gcs.store import FINISH_PATIENCE, GcsStore, signed_url
from resumable.remotes.interfaces import IRegion, Unfinished
from resumable.remotes.metadata import ID_METADATA, PLAIN, TOKEN_METADATA, Unkept, taken
from resumable.remotes.object_store import IObjectStore, Listed, Made, ObjectProperties, SentPart
from resumable.remotes.plan import TIB, PartLimits
from resumable.remotes.reading import IObjectStream, Presented, missing, ranged
from resumable.remotes.regions import BytesRegion
from resumable.remotes.s3.checksums import ALGORITHMS, of_whole

FAN: Final = 32
"""Objects that one request composes at most."""
LIMITS = PartLimits(smallest_part=1, largest_part=5 * TIB, parts=FAN**3, largest_object=5 * TIB)
"""Google limits neither the number nor the least size of components; three levels of compose are our choice."""
AT_ONCE: Final = 8
"""Requests of one call that are under way at most, so that others get connections too."""
BATCH: Final = 100
PAGE: Final = 1000
LIST_SIZE: Final = 8 << 20
"""Bytes of a page at most, with the longest keys."""
CRC32C = ALGORITHMS["crc32c"]
OURS: Final = (ID_METADATA, TOKEN_METADATA)


@frozen
class Draft:
    """What an object is made with; see `GcsObjectOptions.resource_for`."""

    key: str
    resource: Mapping[str, Any]

    def plainer(self) -> Draft | None:
        """See `resumable.remotes.metadata.MetadataHolder`. The id and the token stay."""
        had = self.resource["metadata"]
        ours = {name: had[name] for name in OURS if name in had}
        if had != ours:
            return evolve(self, resource={**self.resource, "metadata": ours})
        rest = {name: value for name, value in self.resource.items() if name != "contentDisposition"}
        rest["contentType"] = PLAIN
        return None if rest == self.resource else evolve(self, resource=rest)


@frozen
class Source:
    """An object that is composed. ``crc``: its CRC32C in Base64; None: not known."""

    name: str
    size: int
    crc: str | None


@implementer(IObjectStore)
class GcsSpoolStore:
    """One bucket and prefix. ``now``: seconds since the epoch. ``closing`` is called at the end."""

    limits = LIMITS
    conditional = True
    numbered = False
    part_objects = True
    copies_ranges = False
    lifetime = None

    def __init__(
        self,
        requests: GcsRequests,
        store: GcsStore,
        options: GcsObjectOptions,
        now: Callable[[], float],
        rng: Random,
        *,
        prefix: str,
        part_size: int,
        closing: Callable[[], Deferred[None]],
    ) -> None:
        self.prefix = prefix
        self.part_size = part_size
        self._requests = requests
        self._place = requests.place
        self._store = store
        self._options = options
        self._now = now
        self._rng = rng
        self._closing = closing

    @deferred
    async def put(self, key: str, data: IRegion, properties: ObjectProperties, only_new: bool) -> Made:
        """See IObjectStore."""

        async def insert(draft: Draft) -> GcsObject:
            query = [*self._options.query(), *_condition(only_new)]
            return await self._store.insert("insert", key, draft.resource, data, query)

        return _made(key, await self._taken(key, properties, insert))

    def begin(self, key: str, properties: ObjectProperties) -> Deferred[str]:
        """See IObjectStore."""
        return succeed(json.dumps({"token": properties.token, "bits": self._bits()}))

    @deferred
    async def write_part(self, key: str, handle: str, number: int, name: str, data: IRegion) -> str:
        """See IObjectStore."""
        return _receipt(await self._write(name, data))

    @deferred
    async def copy_part(self, key: str, handle: str, number: int, name: str, source: str, start: int, size: int) -> str:
        """See IObjectStore. CannotCopy for less than the whole source: Google copies no ranges."""
        found = await self._store.look(source)
        if found is None:
            raise NotThere(f'compose: there is no object "{source}"')
        if start or size != found.size:
            raise CannotCopy("compose: only whole objects are copied inside the store")
        return _receipt(await self._compose(name, [Source(source, size, found.crc32c)], self._plain(), False))

    @deferred
    async def complete(
        self, key: str, handle: str, properties: ObjectProperties, parts: Sequence[SentPart], only_new: bool
    ) -> Made:
        """See IObjectStore. One request for each 32 parts, and one more for each 32 of these."""
        given = evolve(properties, token=self.token_of(handle))
        sources = [Source(part.name, part.size, _crc(part.receipt)) for part in parts if part.size]
        if not sources:
            return await self.put(key, BytesRegion(b""), given, only_new)
        between: set[str] = set()
        try:
            joined = await self._joined(sources, between)

            async def compose(draft: Draft) -> GcsObject:
                return await self._compose(key, joined, draft.resource, only_new, final=True)

            return _made(key, await self._taken(key, given, compose))
        finally:
            with suppress(RemoteError):  # nobody knows them, so they are swept later
                await self.remove(sorted(between))

    def token_of(self, handle: str) -> str:
        """See IObjectStore."""
        return str(json.loads(handle)["token"])

    def abandon(self, key: str, handle: str, names: Sequence[str]) -> Deferred[None]:
        """See IObjectStore."""
        return self.remove(names)

    @deferred
    async def find(self, key: str) -> Made | None:
        """See IObjectStore."""
        found = await self._store.look(key)
        return None if found is None else _made(key, found)

    @deferred
    async def write(self, name: str, data: IRegion) -> None:
        """See IObjectStore."""
        await self._write(name, data)

    @deferred
    async def open(self, key: str, start: int, size: int) -> IObjectStream:
        """See IObjectStore."""
        url = self._place.object(key, [("alt", "media")])
        try:
            opened = await self._requests.stream("read", url, {"Range": f"bytes={start}-{start + size - 1}"})
        except AuthFailed as error:
            raise may_not("read", error, "storage.objects.get") from None
        except RemoteError as error:
            raise missing(error) from None
        return ranged(opened, start, size)

    @deferred
    async def remove(self, keys: Sequence[str]) -> None:
        """See IObjectStore."""
        groups = [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]
        await side_by_side([partial(self._remove, group) for group in groups], AT_ONCE)

    @deferred
    async def signed_url(self, key: str, presented: Presented) -> str | None:
        """See IObjectStore."""
        return await signed_url(self._requests, key, presented, self._now())

    @deferred
    async def list(self, prefix: str, after: str, limit: int) -> Sequence[Listed]:
        """See IObjectStore."""
        found: list[Listed] = []
        query = [
            ("prefix", prefix),
            ("fields", "nextPageToken,items(name,size,updated)"),
            ("maxResults", str(min(limit + 1, PAGE))),
            *([("startOffset", after)] if after else []),
        ]
        token: str | None = ""
        while token is not None and len(found) < limit:
            more = [("pageToken", token)] if token else []
            answer = await self._requests.send("list", "GET", self._place.objects([*query, *more]), largest=LIST_SIZE)
            page, token = _listed(answer)
            found += [each for each in page if each.key > after]  # it begins with ``after`` itself
        return found[:limit]

    def list_unfinished(self, limit: int, after: Unfinished | None) -> Deferred[Sequence[Unfinished]]:
        """See IObjectStore. There are only objects here."""
        return succeed([])

    def works_with(self, handle: str, found: Unfinished) -> bool:
        """See IObjectStore. Nothing is listed."""
        return True

    def drop(self, found: Unfinished) -> Deferred[None]:
        """See IObjectStore. Nothing is listed."""
        return succeed(None)

    @deferred
    async def probe(self) -> None:
        """See IProbe. Makes a small object, finds, lists and deletes it."""
        key = f"{self.prefix}.tails/.probe/{self._bits()}"
        await self.write(key, BytesRegion(b"?"))
        try:
            await self._store.look(key)
            await self.list(self.prefix, "", 1)
        finally:
            await self.remove([key])

    def close(self) -> Deferred[None]:
        """See IObjectStore."""
        return self._closing()

    def _bits(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"

    def _plain(self) -> dict[str, Any]:
        """The resource of our own objects. Compose needs them in the class of what it makes."""
        storage_class = self._options.storage_class
        return {"contentType": PLAIN, **({"storageClass": storage_class} if storage_class else {})}

    def _write(self, name: str, data: IRegion) -> Deferred[GcsObject]:
        """One of our own objects; nobody else is let in by an ACL."""
        query = evolve(self._options, acl=None).query()
        return Deferred.fromCoroutine(self._store.insert("insert", name, self._plain(), data, query))

    async def _taken(self, key: str, properties: ObjectProperties, make: Callable[[Draft], Any]) -> GcsObject:
        """The answer of ``make``, with as much of the client's metadata as the store takes."""
        wanted = self._options.resource_for(properties.upload_id, properties.metadata)
        wanted["metadata"] = {**wanted["metadata"], TOKEN_METADATA: properties.token}
        made: GcsObject
        _, made = await taken(Unkept[Draft](), properties.upload_id, Draft(key, wanted), make, may_be_metadata)
        return made

    async def _joined(self, sources: Sequence[Source], between: set[str]) -> Sequence[Source]:
        """At most `FAN` objects of the same bytes; the names of those that are made for it get into ``between``."""
        base = f"{sources[0].name}.{self._bits()}"

        async def join(group: Sequence[Source]) -> Source:
            if len(group) == 1:
                return group[0]
            between.add(name := f"{base}-{len(between)}")
            made = await self._compose(name, group, self._plain(), False)
            return Source(name, made.size, made.crc32c)

        while len(sources) > FAN:
            groups = [sources[start : start + FAN] for start in range(0, len(sources), FAN)]
            sources = await side_by_side([partial(join, group) for group in groups], AT_ONCE)
        return sources

    async def _compose(
        self, key: str, sources: Sequence[Source], resource: Mapping[str, Any], only_new: bool, final: bool = False
    ) -> GcsObject:
        """The object, made of these. NotThere: one of them isn't there. ``final``: it is an upload's."""
        names = [{"name": each.name} for each in sources]
        body = json.dumps({"sourceObjects": names, "destination": resource}).encode()
        query = evolve(self._options, acl=None).query() + _condition(only_new)
        if final and self._options.acl:
            query.append(("destinationPredefinedAcl", self._options.acl))
        answer = await self._requests.send(
            "compose",
            "POST",
            self._place.compose(key, query),
            {"Content-Type": "application/json; charset=UTF-8"},
            body,
            patience=FINISH_PATIENCE,
        )
        made, crc = object_from("compose", answer.body), _whole_crc(sources)
        if made.size != sum(each.size for each in sources) or (crc and made.crc32c not in (None, crc)):
            await self._store.delete(key, made.generation)
            raise Transient("compose: the store made other bytes than were sent", code=BAD_DIGEST)
        return made

    async def _remove(self, keys: Sequence[str]) -> None:
        """Some, by one request; one by one at a store that doesn't do that."""
        if len(keys) > 1:
            with suppress(Permanent, NotThere):
                return await self._remove_batch(keys)
        await side_by_side([partial(self._store.delete, key) for key in keys], AT_ONCE)

    async def _remove_batch(self, keys: Sequence[str]) -> None:
        boundary = f"resumable-{self._bits()}"
        urls = [self._place.object(key).removeprefix(self._place.base) for key in keys]
        calls = [
            f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <{at}>\r\n\r\nDELETE {url} HTTP/1.1\r\n\r\n"
            for at, url in enumerate(urls)
        ]
        body = "".join([*calls, f"--{boundary}--\r\n"]).encode()
        headers = {"Content-Type": f"multipart/mixed; boundary={boundary}"}
        answer = await self._requests.send("batch", "POST", self._place.batch(), headers, body, largest=LIST_SIZE)
        statuses = _statuses(answer)
        if len(statuses) != len(keys):
            raise Transient(f"batch: {len(statuses)} answers to {len(keys)} calls")
        for status in statuses:
            if not (200 <= status < 300 or status == 404):
                error = error_from("delete", status, {}, b"")
                raise may_not("delete", error, "storage.objects.delete") if isinstance(error, AuthFailed) else error


def _condition(only_new: bool) -> list[tuple[str, str]]:
    return [("ifGenerationMatch", "0")] if only_new else []


def _made(key: str, made: GcsObject) -> Made:
    token, upload_id = made.metadata.get(TOKEN_METADATA, ""), made.metadata.get(ID_METADATA, "")
    checksum = f"crc32c:{made.crc32c}" if made.crc32c else None
    return Made(key, made.size, token, upload_id, made.etag, made.generation, checksum)


def _receipt(made: GcsObject) -> str:
    return f"crc32c:{made.crc32c}" if made.crc32c else "written"


def _crc(receipt: str) -> str | None:
    return receipt.removeprefix("crc32c:") if receipt.startswith("crc32c:") else None


def _whole_crc(sources: Sequence[Source]) -> str | None:
    known = [(each.crc, each.size) for each in sources if each.crc is not None]
    return of_whole(CRC32C, known) if CRC32C and len(known) == len(sources) else None


def _listed(answer: HttpAnswer) -> tuple[list[Listed], str | None]:
    """A page, and the token of the next one."""
    try:
        value = json.loads(answer.body)
        page = [
            Listed(str(each["name"]), int(each["size"]), datetime.fromisoformat(each["updated"]).timestamp())
            for each in value.get("items", ())
        ]
        return page, value.get("nextPageToken") or None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Transient("list: the answer is no list") from None


def _statuses(answer: HttpAnswer) -> list[int]:
    """Of the calls of a batch."""
    lines = answer.body.decode("latin-1").splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("HTTP/1.") and line.split()[1].isdecimal()]
