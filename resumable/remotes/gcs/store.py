"""A bucket's operations in terms of replicas: objects, sessions, and how objects are read back.

Invariant: whatever creates an object names the upload in its metadata, and refuses to replace another's object unless
that was asked for. Only sessions and objects that are known to be ours are removed. An object is read, or a URL to it
given out, only if it carries the upload's id and has its size.
Source: https://docs.cloud.google.com/storage/docs/request-preconditions
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any
from urllib.parse import quote, urlsplit

from resumable.httpclient.client import HttpAnswer
from resumable.model import keys
from resumable.remotes.errors import AuthFailed, Conflict, NotThere, RemoteError, Transient, Unusable
from resumable.remotes.gcs.credentials import Unsigned
from resumable.remotes.gcs.records import GcsObject, GcsObjectOptions, GcsRecord, encoded, object_from
from resumable.remotes.gcs.requests import NO_BUCKET, Framed, GcsRequests, crc_of, may_not
from resumable.remotes.interfaces import IContent, IRegion, Stored
from resumable.remotes.object_remote import another_object, found_ours
from resumable.remotes.reading import (
    IObjectStream,
    ObjectStream,
    Presented,
    check_answered,
    check_span,
    finalised,
    missing,
    range_headers,
)
from resumable.remotes.regions import BytesRegion

PROBE = ".resumable-probe"


class GcsStore:
    """A bucket. Keeps nothing."""

    def __init__(
        self, requests: GcsRequests, options: GcsObjectOptions, template: keys.KeyTemplate, replace: bool, rng: Random
    ) -> None:
        self._requests = requests
        self._options = options
        self._template = template
        self._rng = rng
        self._replace = replace
        self.sessions = Sessions(requests)

    async def put(self, upload_id: str, record: GcsRecord, data: IRegion) -> Stored:
        """Make the object in one go. Raises Conflict for another's object."""
        query = [*self._options.query(), *self._condition()]
        try:
            made = await self.insert("insert", record.key, record.resource, data, query)
        except Conflict:
            return await self.ours_or_conflict(upload_id, record)
        return made.stored(self._requests.place.bucket)

    async def start(self, record: GcsRecord) -> str:
        """Begin a session; answers its URI."""
        return await self.sessions.start(record.key, record.resource, [*self._options.query(), *self._condition()])

    async def find_ours(self, upload_id: str, record: GcsRecord) -> Stored | None:
        """The object, if it carries the upload's id and has its size."""
        found = None if record.size is None else await self.look(record.key)
        if found is None or not found.is_of(upload_id, record.size):
            return None
        return found.stored(self._requests.place.bucket)

    async def ours_or_conflict(self, upload_id: str, record: GcsRecord) -> Stored:
        """The object that is in our way, if it is ours. Raises Conflict, or Transient when it is gone."""
        found = await self.look(record.key)
        if found is None:
            raise Transient("what was in the way of the object is gone", code="conditionNotMet")
        if not found.is_of(upload_id, record.size):
            raise another_object(record.key, code="conditionNotMet")
        return found.stored(self._requests.place.bucket)

    async def delete_ours(self, upload_id: str, record: GcsRecord) -> bool:
        """Delete the object if it is ours; whether it was there. One that replaces it meanwhile stays."""
        found = await self.look(record.key)
        if found is None or not found.is_of(upload_id, None):
            return False
        return await self.delete(record.key, found.generation)

    async def delete(self, key: str, generation: str | None = None) -> bool:
        """Delete this generation of it; whether it was there."""
        query = [("ifGenerationMatch", generation)] if generation else []
        try:
            await self._requests.send("delete", "DELETE", self._requests.place.object(key, query))
        except (NotThere, Conflict):
            return False
        except AuthFailed as error:
            raise may_not("delete", error, "storage.objects.delete") from None
        return True

    async def probe(self) -> None:
        """See IProbe. Begins a session and cancels it; looks for an object that isn't there, and deletes it."""
        key = f"{self._template.prefix}{PROBE}"
        session = await self.sessions.start(key, {"contentType": "application/octet-stream"}, self._options.query())
        await self.sessions.cancel(session)
        await self.look(key)
        await self.delete(key)

    def _condition(self) -> list[tuple[str, str]]:
        return [] if self._replace else [("ifGenerationMatch", "0")]

    async def look(self, key: str) -> GcsObject | None:
        """The object that everybody sees under the key."""
        try:
            answer = await self._requests.send("look up", "GET", self._requests.place.object(key))
        except NotThere:
            return None
        except AuthFailed as error:
            raise may_not("look up", error, "storage.objects.get and storage.objects.list") from None
        return object_from("look up", answer.body)

    async def insert(
        self, name: str, key: str, resource: Mapping[str, Any], data: IRegion, query: list[tuple[str, str]]
    ) -> GcsObject:
        """Properties and bytes in one request, with a checksum that the store compares before there is an object."""
        if data.size <= QUANTUM:
            data = BytesRegion(await data.read(0, data.size) if data.size else b"")  # once, for both passes
        crc = encoded(await crc_of(data, data.size))
        boundary = f"resumable-{self._rng.getrandbits(128):032x}"
        properties = json.dumps({**resource, "crc32c": crc})
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{properties}\r\n"
            f"--{boundary}\r\nContent-Type: {resource['contentType']}\r\n\r\n"
        )
        body = Framed(head.encode(), data, f"\r\n--{boundary}--\r\n".encode())
        headers = {"Content-Type": f"multipart/related; boundary={boundary}"}
        url = self._requests.place.upload("multipart", key, query)
        try:
            answer = await self._requests.send(name, "POST", url, headers, body)
        except NotThere as error:
            raise no_bucket(error) from None
        made = object_from(name, answer.body)
        if made.crc32c not in (None, crc) or made.size != data.size:
            await self.delete(key, made.generation)
            raise Transient(f"{name}: the store has other bytes than were sent", code="badDigest")
        return made


QUANTUM = 256 << 10
"""All that is sent before the end comes in multiples of it."""
FINISH_PATIENCE = 5.0
"""Times the idle time-out: the store may be silent for long while it makes an object of many GiB."""
INCOMPLETE = 308


class Sessions:
    """The sessions of a bucket. A URI is a secret."""

    def __init__(self, requests: GcsRequests) -> None:
        self._requests = requests

    async def start(self, key: str, resource: Mapping[str, Any], query: Sequence[tuple[str, str]]) -> str:
        """A new session's URI. Conditions in ``query`` are checked when it is finished."""
        name, body = "start a session", json.dumps(resource).encode()
        headers = {
            "Content-Type": "application/json; charset=UTF-8",
            "X-Upload-Content-Type": str(resource.get("contentType", "application/octet-stream")),
        }
        try:
            answer = await self._requests.send(
                name, "POST", self._requests.place.upload("resumable", key, query), headers, body
            )
        except NotThere as error:
            raise no_bucket(error) from None
        uri = answer.headers.get("location", "")
        if not re.fullmatch(r"https?://[!-~]+", uri):
            raise Transient(f"{name}: the answer has no session")
        if urlsplit(uri).scheme != urlsplit(self._requests.place.base).scheme:
            raise Unusable(f"{name}: the session is on another kind of connection", advice="correct the endpoint")
        return uri

    async def ask(self, uri: str) -> int | GcsObject:
        """How many bytes the store has kept, or the object that was made of them. NotThere: it knows no session."""
        name = "ask for the progress"
        answer = await self._requests.send(
            name, "PUT", uri, {"Content-Range": "bytes */*"}, b"", expected=(INCOMPLETE,)
        )
        return _kept(name, answer)

    async def send(self, uri: str, offset: int, data: IContent) -> int | GcsObject:
        """Send the bytes at ``offset``; answers as `ask`."""
        name, end = "send a chunk", offset + data.size
        if end % QUANTUM or not data.size:
            raise ValueError(f"a chunk that ends at {end} would not be kept")
        headers = {"Content-Range": f"bytes {offset}-{end - 1}/*"}
        return _kept(name, await self._requests.send(name, "PUT", uri, headers, data, expected=(INCOMPLETE,)))

    async def finish(self, uri: str, size: int, rest: IContent, crc: int) -> int | GcsObject:
        """Send the ``rest`` and have the object made of ``size`` bytes, whose CRC32C the store compares.

        Answers as `ask`. A session that is finished already answers its object again.
        """
        name = "finish the object"
        range_ = f"{size - rest.size}-{size - 1}" if rest.size else "*"
        headers = {"Content-Range": f"bytes {range_}/{size}", "X-Goog-Hash": f"crc32c={encoded(crc)}"}
        answer = await self._requests.send(
            name, "PUT", uri, headers, rest if rest.size else b"", expected=(INCOMPLETE,), patience=FINISH_PATIENCE
        )
        return _kept(name, answer)

    async def cancel(self, uri: str) -> None:
        """Drop the session and its bytes; fine if it isn't known, or has become an object."""
        await self._requests.send("cancel a session", "DELETE", uri, expected=(404, 410, 499))


def _kept(name: str, answer: HttpAnswer) -> int | GcsObject:
    if answer.status != INCOMPLETE:
        return object_from(name, answer.body)
    said = answer.headers.get("range")
    if said is None:
        return 0
    match = re.fullmatch(r"bytes=0-(\d{1,19})", said.strip())
    if match is None:
        raise Transient(f"{name}: the answer doesn't say what was kept")
    return int(match[1]) + 1


def no_bucket(error: NotThere) -> Unusable:
    """Where an object is to be made, only its bucket can be missing."""
    return Unusable(error.reason, status=error.status, code=NO_BUCKET, advice="create the bucket, or correct its name")


class GcsReading:
    """Objects of one bucket, read back: two requests for a stream, one for a signed URL.

    ``now``: seconds since the epoch.
    The generation that is read is the one that was looked at.
    Source: https://docs.cloud.google.com/storage/docs/json_api/v1/objects/get
    """

    def __init__(self, requests: GcsRequests, store: GcsStore, now: Callable[[], float]) -> None:
        self._requests = requests
        self._store = store
        self._now = now

    async def open(self, upload_id: str, record: GcsRecord, start: int, size: int) -> IObjectStream:
        """See IReadable.read_object."""
        total = finalised(record.stored)
        check_span(start, size, total)
        found = await found_ours(self._store, upload_id, record)
        query = [("alt", "media"), *([("generation", found.version)] if found.version else [])]
        url = self._requests.place.object(record.key, query)
        try:
            opened = await self._requests.stream("read", url, range_headers(start, size, total))
        except AuthFailed as error:
            raise may_not("read", error, "storage.objects.get") from None
        except RemoteError as error:
            raise missing(error) from None
        try:
            check_answered(opened.status, opened.headers, start, size, total)
        except RemoteError:
            opened.stream.close()
            raise
        return ObjectStream(opened.stream)

    async def url(self, upload_id: str, record: GcsRecord, presented: Presented) -> str | None:
        """See ISigning.signed_url."""
        finalised(record.stored)
        await found_ours(self._store, upload_id, record)
        return await signed_url(self._requests, record.key, presented, self._now())


async def signed_url(requests: GcsRequests, key: str, presented: Presented, now: float) -> str | None:
    """See ISigning.signed_url; without a look at the object."""
    place = requests.place
    query = [
        ("response-content-type", presented.content_type),
        ("response-content-disposition", presented.disposition),
        *([("userProject", place.user_project)] if place.user_project else []),
    ]
    path = f"/{quote(place.bucket, safe='')}/{quote(key, safe='/~')}"
    unsigned = Unsigned(f"{place.base}{path}", query, now, presented.lifetime)
    signed = await requests.tokens.sign(unsigned.text)
    return None if signed is None else unsigned.signed(*signed)
