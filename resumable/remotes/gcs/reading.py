"""Objects of a bucket, read back.

One reason to change: what is asked of the bucket for a download. Two requests for a stream, one for a signed URL.

Invariant: an object is read, or a URL to it given out, only if it carries the upload's id and has its size; what is
read is the very generation that was looked at.
Source: https://docs.cloud.google.com/storage/docs/json_api/v1/objects/get
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from resumable.remotes.errors import AuthFailed, RemoteError
from resumable.remotes.gcs.credentials import ITokens
from resumable.remotes.gcs.records import Record
from resumable.remotes.gcs.requests import Requests, may_not
from resumable.remotes.gcs.signing import Unsigned
from resumable.remotes.gcs.store import Store
from resumable.remotes.interfaces import Stored
from resumable.remotes.over_http import ObjectStream
from resumable.remotes.reading import (
    IObjectStream,
    Presented,
    check_answered,
    check_span,
    finalised,
    missing,
    not_ours,
    range_headers,
)


class Reading:
    """Of one bucket. ``now``: seconds since the epoch."""

    def __init__(self, requests: Requests, store: Store, tokens: ITokens, now: Callable[[], float]) -> None:
        self._requests = requests
        self._store = store
        self._tokens = tokens
        self._now = now

    async def open(self, upload_id: str, record: Record, start: int, size: int) -> IObjectStream:
        """See IReadable.read_object."""
        total = finalised(record.stored)
        check_span(start, size, total)
        found = await self._ours(upload_id, record)
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

    async def url(self, upload_id: str, record: Record, presented: Presented) -> str | None:
        """See ISigning.signed_url."""
        finalised(record.stored)
        await self._ours(upload_id, record)
        place = self._requests.place
        query = [
            ("response-content-type", presented.content_type),
            ("response-content-disposition", presented.disposition),
            *([("userProject", place.user_project)] if place.user_project else []),
        ]
        path = f"/{quote(place.bucket, safe='')}/{quote(record.key, safe='/~')}"
        unsigned = Unsigned(f"{place.base}{path}", query, self._now(), presented.lifetime)
        signed = await self._tokens.sign(unsigned.text)
        return None if signed is None else unsigned.signed(*signed)

    async def _ours(self, upload_id: str, record: Record) -> Stored:
        found = await self._store.find_ours(upload_id, record)
        if found is None:
            raise not_ours()
        return found
