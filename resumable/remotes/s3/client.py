"""An S3 client whose methods are named as txaws's are.

It tries each request once; its users repeat them.

Invariant: an answer without the operation's result (an upload id, an ETag) is a failure, and so is a
success that holds an error document.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote_plus

from resumable.httpclient.client import HttpAnswer
from resumable.remotes.errors import CannotCopy, Transient
from resumable.remotes.interfaces import IRegion
from resumable.remotes.object_store import Listed
from resumable.remotes.s3.answers import (
    BadXml,
    Element,
    ListedPart,
    ObjectHead,
    PartsPage,
    UploadsPage,
    Written,
    complete_document,
    delete_document,
    error_in,
    error_of,
    number_of,
    object_of,
    parse,
    part_of,
    upload_of,
    written,
)
from resumable.remotes.s3.checksums import ALGORITHMS, Algorithm
from resumable.remotes.s3.requests import Payload, S3Requests
from resumable.remotes.s3.signing import encode_path

LIST_SIZE = 4 << 20
"""Bytes of a page of a list; a thousand entries have less than one MiB."""
COMPLETE_PATIENCE = 10.0
"""Joining thousands of parts takes the store minutes."""


class S3Client:
    """Operations on one bucket. All raise RemoteError; ``headers`` are added to the operation's own."""

    def __init__(self, requests: S3Requests) -> None:
        self.requests = requests
        self.endpoint = requests.endpoint
        self.sent = requests.sent

    async def put_object(
        self,
        key: str,
        data: IRegion | bytes,
        headers: Mapping[str, str] | None = None,
        algorithm: Algorithm | None = None,
    ) -> Written:
        """Make an object out of these bytes."""
        answer, checksum = await self.requests.send(
            "PutObject", "PUT", key, headers=headers, payload=Payload(data, algorithm)
        )
        return written("PutObject", answer, checksum, algorithm)

    async def head_object(self, key: str, headers: Mapping[str, str] | None = None) -> ObjectHead:
        """Its properties. NotThere; AuthFailed may mean that too, where we may not list the bucket."""
        answer, _ = await self.requests.send("HeadObject", "HEAD", key, headers=headers)
        got = answer.headers
        try:
            size = int(got["content-length"])
        except (KeyError, ValueError):
            raise Transient("HeadObject: the answer has no size") from None
        prefix = "x-amz-meta-"
        metadata = {name.removeprefix(prefix): value for name, value in got.items() if name.startswith(prefix)}
        return ObjectHead(size, got.get("etag", ""), got.get("x-amz-version-id"), metadata, got)

    async def get_object(self, key: str, headers: Mapping[str, str] | None = None, largest: int = 1 << 20) -> bytes:
        """Its bytes, ``largest`` at most; for small ones."""
        answer, _ = await self.requests.send("GetObject", "GET", key, headers=headers, largest=largest)
        return answer.body

    async def delete_object(self, key: str) -> None:
        """Delete it; no failure when it isn't there."""
        await self.requests.send("DeleteObject", "DELETE", key)

    async def delete_objects(self, keys: Sequence[str]) -> None:
        """Delete them all, 1,000 at most; no failure for those that aren't there. Raises the first object's error."""
        name = "DeleteObjects"
        named, payload = {"Content-Type": "application/xml"}, Payload(delete_document(keys), ALGORITHMS["md5"])
        answer, _ = await self.requests.send(name, "POST", "", [("delete", "")], named, payload, largest=LIST_SIZE)
        for each in self._document(name, answer).all("Error"):
            error = error_of(name, each)
            if error is not None:
                raise error

    async def list_objects(self, prefix: str, after: str, limit: int) -> tuple[Sequence[Listed], bool]:
        """The next objects, ``limit`` at most, under the prefix and behind ``after``; whether there are more."""
        name = "ListObjectsV2"
        query = [("list-type", "2"), ("prefix", prefix), ("max-keys", str(limit)), ("encoding-type", "url")]
        query += [("start-after", after)] if after else []
        answer, _ = await self.requests.send(name, "GET", "", query, largest=LIST_SIZE)
        document = self._document(name, answer)
        encoded = document.find("EncodingType") == "url"
        return [object_of(each, encoded) for each in document.all("Contents")], document.find("IsTruncated") == "true"

    async def init_multipart_upload(self, key: str, headers: Mapping[str, str] | None = None) -> str:
        """Begin; answers the upload id."""
        name = "CreateMultipartUpload"
        answer, _ = await self.requests.send(name, "POST", key, [("uploads", "")], headers, Payload(b""))
        upload_id = self._document(name, answer).find("UploadId")
        if not upload_id:
            raise Transient(f"{name}: the answer has no upload id")
        return upload_id

    async def upload_part(
        self,
        key: str,
        upload_id: str,
        part_number: int,
        data: IRegion | bytes,
        headers: Mapping[str, str] | None = None,
        algorithm: Algorithm | None = None,
    ) -> Written:
        """Write a part, over one of the same number."""
        query = [("partNumber", str(part_number)), ("uploadId", upload_id)]
        answer, checksum = await self.requests.send("UploadPart", "PUT", key, query, headers, Payload(data, algorithm))
        return written("UploadPart", answer, checksum, algorithm)

    async def upload_part_copy(
        self,
        key: str,
        upload_id: str,
        part_number: int,
        source: tuple[str, int, int],
        headers: Mapping[str, str] | None = None,
        algorithm: Algorithm | None = None,
    ) -> Written:
        """Write a part of an object's bytes: its key, the first byte, and how many. CannotCopy."""
        name, (key_from, start, size) = "UploadPartCopy", source
        named = {
            **(headers or {}),
            "x-amz-copy-source": encode_path(f"{self.endpoint.bucket}/{key_from}"),
            "x-amz-copy-source-range": f"bytes={start}-{start + size - 1}",
        }
        query = [("partNumber", str(part_number)), ("uploadId", upload_id)]
        answer, _ = await self.requests.send(name, "PUT", key, query, named, Payload(b""), patience=COMPLETE_PATIENCE)
        if not answer.body.strip():
            raise CannotCopy(f"{name}: the store took it for a part of no bytes")
        document = self._document(name, answer)
        etag = document.find("ETag")
        if not etag:
            raise Transient(f"{name}: the answer has no ETag")
        return Written(etag, document.find(algorithm.element) if algorithm and algorithm.label else None)

    async def list_parts(
        self,
        key: str,
        upload_id: str,
        marker: int = 0,
        limit: int = 1000,
        headers: Mapping[str, str] | None = None,
        algorithm: Algorithm | None = None,
    ) -> PartsPage:
        """The next ``limit`` parts at most behind the number ``marker``. Numbers that are missing are not there."""
        query = [("uploadId", upload_id), ("max-parts", str(limit)), ("part-number-marker", str(marker))]
        answer, _ = await self.requests.send("ListParts", "GET", key, query, headers, largest=LIST_SIZE)
        document = self._document("ListParts", answer)
        element = algorithm.element if algorithm and algorithm.label else None
        parts = sorted((part_of(each, element) for each in document.all("Part")), key=lambda part: part.number)
        if document.find("IsTruncated") != "true" or not parts:
            return PartsPage(parts, None)
        return PartsPage(parts, max(number_of(document.find("NextPartNumberMarker")), parts[-1].number))

    async def list_all_parts(
        self,
        key: str,
        upload_id: str,
        headers: Mapping[str, str] | None = None,
        algorithm: Algorithm | None = None,
    ) -> Sequence[ListedPart]:
        """All pages of `list_parts`."""
        parts: list[ListedPart] = []
        marker: int | None = 0
        while marker is not None:
            page = await self.list_parts(key, upload_id, marker, headers=headers, algorithm=algorithm)
            parts.extend(page.parts)
            if page.marker is not None and page.marker <= marker:
                raise Transient("ListParts: the pages don't end")
            marker = page.marker
        return parts

    async def list_multipart_uploads(
        self, prefix: str = "", key_marker: str = "", upload_id_marker: str = "", limit: int = 1000
    ) -> UploadsPage:
        """The next ``limit`` unfinished uploads at most, under ``prefix``, behind the markers."""
        name = "ListMultipartUploads"
        query = [("uploads", ""), ("prefix", prefix), ("max-uploads", str(limit)), ("encoding-type", "url")]
        if key_marker:
            query += [("key-marker", key_marker), ("upload-id-marker", upload_id_marker)]
        answer, _ = await self.requests.send(name, "GET", "", query, largest=LIST_SIZE)
        document = self._document(name, answer)
        encoded = document.find("EncodingType") == "url"
        uploads = [upload_of(each, encoded) for each in document.all("Upload")]
        if document.find("IsTruncated") != "true":
            return UploadsPage(uploads, None)
        next_key = document.find("NextKeyMarker") or ""
        markers = (unquote_plus(next_key) if encoded else next_key, document.find("NextUploadIdMarker") or "")
        if markers == (key_marker, upload_id_marker) or not markers[0]:
            raise Transient(f"{name}: the pages don't end")
        return UploadsPage(uploads, markers)

    async def complete_multipart_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[ListedPart],
        headers: Mapping[str, str] | None = None,
        algorithm: Algorithm | None = None,
    ) -> Written:
        """Make an object out of these parts."""
        name = "CompleteMultipartUpload"
        rows = []
        for part in parts:
            row = [("ETag", part.etag), ("PartNumber", str(part.number))]
            if algorithm is not None and algorithm.label and part.checksum:
                row.insert(1, (algorithm.element, part.checksum))
            rows.append(row)
        named = {"Content-Type": "application/xml", **(headers or {})}
        answer, _ = await self.requests.send(
            name, "POST", key, [("uploadId", upload_id)], named, Payload(complete_document(rows)),
            patience=COMPLETE_PATIENCE,
        )  # fmt: skip
        document = self._document(name, answer)
        etag = document.find("ETag")
        if document.name != "CompleteMultipartUploadResult" or not etag:
            raise Transient(f"{name}: the answer doesn't say that it is done")
        checksum = document.find(algorithm.element) if algorithm and algorithm.label else None
        return Written(etag, checksum, answer.headers.get("x-amz-version-id"))

    async def abort_multipart_upload(self, key: str, upload_id: str) -> None:
        """Give it up with all its parts. NotThere: it isn't known."""
        await self.requests.send("AbortMultipartUpload", "DELETE", key, [("uploadId", upload_id)])

    def _document(self, operation: str, answer: HttpAnswer) -> Element:
        error = error_in(operation, answer.status, answer.headers, answer.body, self.endpoint.region)
        if error is not None:
            raise error
        try:
            return parse(answer.body)
        except BadXml as problem:
            raise Transient(f"{operation}: the answer can't be read: {problem}") from None
