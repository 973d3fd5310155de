"""``gs://``: a replica as an object in a bucket of Google Cloud Storage, and the way from an operator's URL to it.

The options of the URL are on the page docs/google.md, word for word.

Invariants: a part counts when the store has kept all of it and the journal knows the checksum of all bytes up to its
end. Before the first chunk that this process sends, and after each that failed, the store is asked for its progress.
The object counts only when its size and its checksum are those of the written bytes. Requests: one for a single part,
else one for each part and one. Sessions can't be listed, so there is nothing to sweep: they end by themselves a week
after their beginning. Each error of a URL that can be found without the store is found before anything starts. A URL
never holds a secret, and no token goes over a connection that isn't encrypted.
Sources: https://docs.cloud.google.com/storage/docs/resumable-uploads,
https://docs.cloud.google.com/storage/docs/buckets#naming
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random
from urllib.parse import urlsplit

from attrs import evolve
from twisted.internet.defer import Deferred

from resumable.aio.deferreds import deferred
from resumable.httpclient.client import Http, HttpLimits
from resumable.model import keys, values
from resumable.remotes.errors import Conflict, NotThere, OutOfStep, RemoteError, Transient
from resumable.remotes.gcs.credentials import Anonymous, GoogleTokens, ITokens, found
from resumable.remotes.gcs.gcs_spool import GcsSpoolStore
from resumable.remotes.gcs.records import GcsObject, GcsObjectOptions, GcsRecord, encoded
from resumable.remotes.gcs.requests import BAD_DIGEST, GOOGLE, GcsPlace, GcsRequests, Stretch, crc_of, may_be_metadata
from resumable.remotes.gcs.store import QUANTUM, GcsReading, GcsStore
from resumable.remotes.interfaces import IContent, IJournal, IRegion, Part, Plan, Stored
from resumable.remotes.journals import ReplicaRecords, Stage
from resumable.remotes.object_remote import ObjectRemote
from resumable.remotes.plan import PART_SIZE, TIB, PartLimits
from resumable.remotes.regions import BytesRegion
from resumable.remotes.urls import BackendServices, RemoteSpec, Scheme, flag, part_size

LIMITS = PartLimits(
    smallest_part=QUANTUM, largest_part=5 * TIB, parts=1 << 24, largest_object=5 * TIB, multiple_of=QUANTUM
)  # fmt: skip
"""A session takes any number of chunks. https://docs.cloud.google.com/storage/quotas"""

OTHER_REQUESTS = 16
"""Connections beside those that write parts: beginnings, ends and questions don't wait for large bodies."""

OPTIONS = {
    "endpoint": "URL of the store, as `https://host` or `http://host:port` (default `STORAGE_EMULATOR_HOST`, else"
    " Google)",
    "anonymous": "`yes`: requests have no credentials, as emulators expect it (default `yes` with an `http` endpoint)",
    "credentials": "absolute path of a JSON file of a service account, of workload identity or of a user (default: as"
    " Google's tools find them)",
    "user-project": "project that pays for the requests, if the bucket's requester pays (default none)",
    "part-size": "size of chunks, from 256K to 5G, rounded up to a multiple of 256K (default `--part-size`)",
    "storage-class": "storage class of the objects, as `NEARLINE` (default the bucket's)",
    "kms-key": "resource name of a Cloud KMS key (default the bucket's)",
    "acl": "predefined ACL of the objects, as `projectPrivate`, if the bucket's access isn't uniform (default none)",
    "metadata": "`no`: the objects don't get the metadata of the uploads (default `yes`)",
}
VARIABLES = {"endpoint": ("STORAGE_EMULATOR_HOST",)}
_PATTERNS = {
    "user-project": (r"[a-z0-9:.-]{1,100}", "the id or number of a project"),
    "storage-class": (r"[A-Z_]{1,40}", "a word like NEARLINE"),
    "kms-key": (
        r"projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+/cryptoKeys/[^/\s]+",
        "projects/P/locations/L/keyRings/R/cryptoKeys/K",
    ),
    "acl": (
        "authenticatedRead|bucketOwnerFullControl|bucketOwnerRead|private|projectPrivate|publicRead",
        "a predefined ACL, as projectPrivate",
    ),
    "credentials": (r"/[^\x00-\x1f]*", "an absolute path"),
}
_part_size = values.size_between("256K", "5G")


class GcsRemote(ObjectRemote[GcsRecord]):
    """One bucket and prefix. ``now``: seconds since the epoch. ``closing`` is called at the end."""

    def __init__(
        self,
        requests: GcsRequests,
        journal: IJournal,
        now: Callable[[], float],
        rng: Random,
        *,
        template: keys.KeyTemplate | None = None,
        options: GcsObjectOptions | None = None,
        part_size: int = PART_SIZE,
        replace: bool = False,
        closing: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        template, options = template or keys.parse(), options or GcsObjectOptions()
        store = GcsStore(requests, options, template, replace, rng)
        super().__init__(
            ReplicaRecords(GcsRecord, journal),
            store,
            GcsReading(requests, store, now),
            now,
            may_be_metadata,
            template=template,
            part_size=part_size,
            closing=closing,
        )
        self._store = store
        self._options = options
        self._bucket = requests.place.bucket
        # what needs not be asked for, of uploads under way
        self._kept: dict[str, int] = {}

    @deferred
    async def get_upload_progress(self, upload_id: str) -> int:
        """See IRemoteStorage. The end of a part: the checksum of no other prefix is known."""
        record = await self._records.started(upload_id)
        stored = await self._found(upload_id, record)
        if stored:
            return stored.size
        if record.session is None:
            return 0
        record, kept = await self._asked(upload_id, record, record.session)
        self._kept[upload_id] = kept
        return record.stored.size if record.stored else record.confirmed

    def probe(self) -> Deferred[None]:
        """See IProbe."""
        return Deferred.fromCoroutine(self._store.probe())

    def _limits(self, size: int | None) -> PartLimits:
        return LIMITS

    def _record(
        self, upload_id: str, key: str, plan: Plan, size: int | None, metadata: Mapping[str, bytes]
    ) -> GcsRecord:
        return GcsRecord(key=key, plan=plan, resource=self._options.resource_for(upload_id, metadata), size=size)

    async def _write_part(self, upload_id: str, record: GcsRecord, part: Part, data: IRegion) -> None:
        if part.end <= record.confirmed:
            return
        if part.offset > record.confirmed:
            raise OutOfStep(f"chunks come in order; {record.confirmed} bytes are there", record.confirmed)
        is_last = part.end == record.size
        record, kept = await self._begun(upload_id, record)
        if record.stored:
            return
        have = min(max(kept - record.confirmed, 0), data.size)
        if is_last:
            crc = await crc_of(data, data.size, record.crc)
            await self._make(upload_id, record, Stretch(data, have, data.size - have), crc)
        else:
            await self._write(upload_id, record, data, have)

    async def _write(self, upload_id: str, record: GcsRecord, data: IRegion, have: int) -> None:
        """Write a part that isn't the last, of which the session has so many bytes already."""
        crc, end = await crc_of(data, have, record.crc), record.confirmed + data.size
        if have < data.size:
            sent = Stretch(data, have, data.size - have, crc)
            if await self._send(upload_id, record, record.confirmed + have, sent):
                return
            crc = sent.crc
        await self._records.save(upload_id, evolve(record, confirmed=end, crc=crc))
        self._kept[upload_id] = end

    async def _begun(self, upload_id: str, record: GcsRecord) -> tuple[GcsRecord, int]:
        """A record with a session, and how many bytes that has; or one that is stored."""
        kept = self._kept.pop(upload_id, None)
        if record.session is None:
            record, session = await self._taken(upload_id, record, self._store.start)
            return await self._records.save(upload_id, evolve(record, session=session)), 0
        if kept is not None and kept == record.confirmed:
            return record, kept
        return await self._asked(upload_id, record, record.session)

    async def _asked(self, upload_id: str, record: GcsRecord, session: str) -> tuple[GcsRecord, int]:
        try:
            kept = await self._store.sessions.ask(session)
        except NotThere as error:
            stored = await self._lost(upload_id, record, error.reason, error)
            return evolve(record, stored=stored), 0
        return await self._judged(upload_id, record, kept, record.confirmed)

    async def _judged(
        self, upload_id: str, record: GcsRecord, kept: int | GcsObject, least: int
    ) -> tuple[GcsRecord, int]:
        if isinstance(kept, GcsObject):
            if kept.is_of(upload_id, None) and kept.size != record.size:
                await self._store.delete(record.key, kept.generation)  # an object that was not asked for
            stored = await self._lost(upload_id, record, "the session made an object that isn't the upload's")
            return evolve(record, stored=stored), 0
        if kept < least:
            stored = await self._lost(upload_id, record, f"the store has only {kept} of {least} confirmed bytes")
            return evolve(record, stored=stored), 0
        return record, kept

    async def _send(self, upload_id: str, record: GcsRecord, offset: int, data: IContent) -> bool:
        """Whether the object turned out to be there already.

        Raises OutOfStep when the store has kept less: its progress is asked for before the rest is sent.
        """
        end = offset + data.size
        try:
            answer = await self._store.sessions.send(record.session or "", offset, data)
        except NotThere as error:
            await self._lost(upload_id, record, error.reason, error)
            return True
        record, kept = await self._judged(upload_id, record, answer, offset)
        if record.stored or kept == end:
            return record.stored is not None
        reason = f"the store has kept {kept} of {end} bytes"
        raise Transient(reason) if kept <= offset or kept > end else OutOfStep(reason, record.confirmed)

    async def _finish(self, upload_id: str, record: GcsRecord, size: int) -> Stored:
        if record.confirmed < size:
            raise OutOfStep("not all was written", record.confirmed)
        return await self._make(upload_id, record, BytesRegion(b""), record.crc)

    async def _make(self, upload_id: str, record: GcsRecord, rest: IContent, crc: int) -> Stored:
        """Send the ``rest`` and have the object made. ``crc``: of all."""
        size = record.size or 0
        if record.state is not Stage.PLACING:
            record = await self._records.save(upload_id, evolve(record, state=Stage.PLACING))
        try:
            made = await self._store.sessions.finish(record.session or "", size, rest, crc)
        except Conflict:
            return await self._keep(upload_id, record, await self._store.ours_or_conflict(upload_id, record))
        except NotThere as error:
            return await self._lost(upload_id, record, error.reason, error)
        except RemoteError as error:
            if error.code != BAD_DIGEST:
                raise
            return await self._lost(upload_id, record, f"{error.reason}; all has to be written again", error)
        if not isinstance(made, GcsObject):
            if made < record.confirmed:
                return await self._lost(upload_id, record, f"the store has only {made} of {record.confirmed} bytes")
            if made < size:
                raise OutOfStep(f"the store has kept {made} of {size} bytes", record.confirmed)
            raise Transient("the store did not finish the object")
        if made.size == record.size and made.crc32c in (None, encoded(crc)):
            return await self._keep(upload_id, record, made.stored(self._bucket))
        await self._store.delete(record.key, made.generation)
        return await self._lost(upload_id, record, "the store has other bytes than were written")

    async def _keep(self, upload_id: str, record: GcsRecord, stored: Stored) -> Stored:
        await super()._keep(upload_id, record, stored)
        self._kept.pop(upload_id, None)
        return stored

    async def _lost(self, upload_id: str, record: GcsRecord, why: str, cause: RemoteError | None = None) -> Stored:
        """The session is of no more use: the object is there and ours, or all begins anew, with NotThere."""
        self._kept.pop(upload_id, None)
        there = await self._store.find_ours(upload_id, record)
        if there:
            return await self._keep(upload_id, record, there)
        if record.session is not None:
            await self._store.sessions.cancel(record.session)
        await self._records.save(upload_id, record.anew())
        raise NotThere(why, status=cause.status if cause else None, code=cause.code if cause else None) from None

    async def _end(self, upload_id: str, record: GcsRecord, again: bool) -> None:
        self._kept.pop(upload_id, None)
        if record.session is not None:
            await self._store.sessions.cancel(record.session)
            await self._records.save(upload_id, evolve(record, session=None))


def check(spec: RemoteSpec) -> None:
    """Raises ValueError for values that can't be. See `Scheme`."""
    options = spec.options
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", spec.bucket):
        raise ValueError("a bucket's name has 3 to 222 of a-z, 0-9, hyphens, underscores and dots")
    for name, (pattern, meaning) in _PATTERNS.items():
        if options.get(name) and not re.fullmatch(pattern, options[name]):
            raise ValueError(f"{name} is {meaning}")
    if options.get("part-size"):
        part_size(options, 0, _part_size)
    is_anonymous(options)
    flag(options, "metadata", True)


def endpoint_for(options: Mapping[str, str]) -> str:
    """Where the store is, without a slash at the end. Raises ValueError; it repeats no URL, which may hold a secret."""
    said = options.get("endpoint") or GOOGLE
    url = said if "://" in said else f"http://{said}"  # as STORAGE_EMULATOR_HOST often is
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        right = False
    if not right or "@" in url or "?" in url or "#" in url or not re.fullmatch(r"[!-~]+", url):
        raise ValueError("an endpoint looks like https://host or http://host:port; credentials come from a file")
    return url.rstrip("/")


def is_anonymous(options: Mapping[str, str]) -> bool:
    """Whether requests carry no credentials. Raises ValueError."""
    is_secure = endpoint_for(options).startswith("https://")
    anonymous = flag(options, "anonymous", not is_secure)
    if anonymous and options.get("credentials"):
        raise ValueError("credentials are of no use to anonymous requests; an endpoint that is http has no others")
    if not anonymous and not is_secure:
        raise ValueError("anonymous=no needs an endpoint that is https: anybody on the way could take the token")
    return anonymous


def make(spec: RemoteSpec, services: BackendServices) -> GcsRemote:
    """The remote. Raises ValueError. Credentials are looked for when the first request needs them."""
    requests, http = _connected(spec, services)
    return GcsRemote(
        requests,
        services.journal,
        services.now,
        services.rng,
        template=spec.template,
        options=_object_options(spec.options),
        part_size=part_size(spec.options, services.part_size, _part_size),
        replace=spec.replace,
        closing=http.close,
    )


def make_store(spec: RemoteSpec, services: BackendServices) -> GcsSpoolStore:
    """The same as a spool. Raises ValueError."""
    requests, http = _connected(spec, services)
    options = _object_options(spec.options)
    return GcsSpoolStore(
        requests,
        GcsStore(requests, options, spec.template, spec.replace, services.rng),
        options,
        services.now,
        services.rng,
        prefix=spec.template.prefix,
        part_size=part_size(spec.options, services.part_size, _part_size),
        closing=http.close,
    )


def _connected(spec: RemoteSpec, services: BackendServices) -> tuple[GcsRequests, Http]:
    options = spec.options
    tokens: ITokens = GoogleTokens(services.pool, services.now, found(options.get("credentials") or None))
    if is_anonymous(options):
        tokens = Anonymous()
    http = Http(
        services.reactor, HttpLimits(idle_timeout=services.timeout, connections=services.parts + OTHER_REQUESTS)
    )
    place = GcsPlace(spec.bucket, endpoint_for(options), options.get("user-project") or None)
    return GcsRequests(place, tokens, http, memory=services.memory), http


def _object_options(options: Mapping[str, str]) -> GcsObjectOptions:
    return GcsObjectOptions(
        storage_class=options.get("storage-class") or None,
        kms_key=options.get("kms-key") or None,
        acl=options.get("acl") or None,
        client_metadata=flag(options, "metadata", True),
    )


SCHEME = Scheme("gs", make, "bucket", OPTIONS, check, VARIABLES, make_store)
