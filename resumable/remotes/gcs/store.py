"""What the remote asks of a bucket, in terms of replicas.

One reason to change: properties and conditions of the requests that make, find and remove objects.

Invariant: whatever creates an object names the upload in its metadata, and refuses to replace another's object unless
that was asked for. Only sessions and objects that are known to be ours are removed.
Source: https://docs.cloud.google.com/storage/docs/request-preconditions
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any

from resumable.model import keys
from resumable.remotes.errors import AuthFailed, Conflict, NotThere, Transient
from resumable.remotes.gcs.bodies import Framed, crc_of
from resumable.remotes.gcs.objects import Object, ObjectOptions, encoded, object_from
from resumable.remotes.gcs.records import Record
from resumable.remotes.gcs.requests import Requests, may_not
from resumable.remotes.gcs.sessions import QUANTUM, Sessions, no_bucket
from resumable.remotes.interfaces import IRegion, Stored
from resumable.remotes.regions import BytesRegion

PROBE = ".resumable-probe"


class Store:
    """A bucket. Keeps nothing."""

    def __init__(
        self, requests: Requests, options: ObjectOptions, template: keys.KeyTemplate, replace: bool, rng: Random
    ) -> None:
        self._requests = requests
        self._options = options
        self._template = template
        self._rng = rng
        self._replace = replace
        self.sessions = Sessions(requests)

    async def put(self, upload_id: str, record: Record, data: IRegion) -> Stored:
        """Make the object in one go. Raises Conflict for another's object."""
        query = [*self._options.query(), *self._condition()]
        try:
            made = await self._insert("insert", record.key, record.resource, data, query)
        except Conflict:
            return await self.ours_or_conflict(upload_id, record)
        return made.stored(self._requests.place.bucket)

    async def start(self, record: Record) -> str:
        """Begin a session; answers its URI."""
        return await self.sessions.start(record.key, record.resource, [*self._options.query(), *self._condition()])

    async def find_ours(self, upload_id: str, record: Record) -> Stored | None:
        """The object, if it carries the upload's id and has its size."""
        found = None if record.size is None else await self._head(record.key)
        if found is None or not found.is_of(upload_id, record.size):
            return None
        return found.stored(self._requests.place.bucket)

    async def ours_or_conflict(self, upload_id: str, record: Record) -> Stored:
        """The object that is in our way, if it is ours. Raises Conflict, or Transient when it is gone."""
        found = await self._head(record.key)
        if found is None:
            raise Transient("what was in the way of the object is gone", code="conditionNotMet")
        if not found.is_of(upload_id, record.size):
            raise Conflict(f'there is another object under "{record.key}"', code="conditionNotMet",
                           advice="remove it, choose another key, or allow to replace it")  # fmt: skip
        return found.stored(self._requests.place.bucket)

    async def delete_ours(self, upload_id: str, record: Record) -> bool:
        """Delete the object if it is ours; whether it was there. One that replaces it meanwhile stays."""
        found = await self._head(record.key)
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
        await self._head(key)
        await self.delete(key)

    def _condition(self) -> list[tuple[str, str]]:
        return [] if self._replace else [("ifGenerationMatch", "0")]

    async def _head(self, key: str) -> Object | None:
        try:
            answer = await self._requests.send("look up", "GET", self._requests.place.object(key))
        except NotThere:
            return None
        except AuthFailed as error:
            raise may_not("look up", error, "storage.objects.get and storage.objects.list") from None
        return object_from("look up", answer.body)

    async def _insert(
        self, name: str, key: str, resource: Mapping[str, Any], data: IRegion, query: list[tuple[str, str]]
    ) -> Object:
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
