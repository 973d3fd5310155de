"""Objects of a bucket, read back.

One reason to change: what is asked of the bucket for a download. One request for a stream, one for a signed URL.

Invariant: an object is read, or a URL to it given out, only if it carries the upload's id and has its size.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
"""

from __future__ import annotations

from resumable.remotes.errors import RemoteError
from resumable.remotes.metadata import ID_METADATA
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
from resumable.remotes.s3.objects import ObjectOptions
from resumable.remotes.s3.records import Record
from resumable.remotes.s3.requests import Requests
from resumable.remotes.s3.store import Store


class Reading:
    """Of one bucket. Keeps nothing."""

    def __init__(self, requests: Requests, store: Store, options: ObjectOptions) -> None:
        self._requests = requests
        self._store = store
        self._options = options

    async def open(self, upload_id: str, record: Record, start: int, size: int) -> IObjectStream:
        """See IReadable.read_object."""
        total = finalised(record.stored)
        check_span(start, size, total)
        headers = {**self._options.access_headers(), **range_headers(start, size, total)}
        try:
            opened = await self._requests.stream("GetObject", record.key, headers)
        except RemoteError as error:
            raise missing(error) from None
        try:
            if opened.headers.get(f"x-amz-meta-{ID_METADATA}") != upload_id:
                raise not_ours()
            check_answered(opened.status, opened.headers, start, size, total)
        except RemoteError:
            opened.stream.close()
            raise
        return ObjectStream(opened.stream)

    async def url(self, upload_id: str, record: Record, presented: Presented) -> str | None:
        """See ISigning.signed_url. With SSE-C a reader would need the key."""
        finalised(record.stored)
        if self._options.access_headers():
            return None
        if await self._store.find_ours(upload_id, record) is None:
            raise not_ours()
        query = [
            ("response-content-type", presented.content_type),
            ("response-content-disposition", presented.disposition),
            ("response-cache-control", "private, no-store"),
        ]
        return await self._requests.presigned(record.key, query, presented.lifetime)
