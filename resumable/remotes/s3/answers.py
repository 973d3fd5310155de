"""What S3's answers hold, as values.

One reason to change: what we take from an answer. Pure. Invariant: a value is complete, or Transient is raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import unquote_plus

from attrs import frozen

from resumable.httpclient.client import HttpAnswer
from resumable.remotes.errors import Transient
from resumable.remotes.s3.checksums import Algorithm
from resumable.remotes.s3.xml import Element


@frozen
class Written:
    """What the store has confirmed. ``checksum`` is the one that was sent and compared."""

    etag: str
    checksum: str | None = None
    version: str | None = None


@frozen
class Head:
    """An object's properties; ``metadata`` by lower-case name without its prefix."""

    size: int
    etag: str
    version: str | None
    metadata: Mapping[str, str]
    headers: Mapping[str, str]


@frozen
class ListedPart:
    """A part that the store has; ``checksum`` only where it keeps them."""

    number: int
    size: int
    etag: str
    checksum: str | None = None


@frozen
class ListedUpload:
    """An unfinished multipart; ``initiated`` in seconds since the epoch."""

    key: str
    upload_id: str
    initiated: float | None


@frozen
class PartsPage:
    """``marker`` asks for the next page; None: this is the last."""

    parts: Sequence[ListedPart]
    marker: int | None


@frozen
class UploadsPage:
    """``markers`` (of key and of upload id) ask for the next page; None: this is the last."""

    uploads: Sequence[ListedUpload]
    markers: tuple[str, str] | None


def written(operation: str, answer: HttpAnswer, checksum: str | None, algorithm: Algorithm | None) -> Written:
    """What an answer to PutObject or UploadPart confirms; ``checksum`` is ours."""
    etag = answer.headers.get("etag")
    if not etag:
        raise Transient(f"{operation}: the answer has no ETag")
    theirs = answer.headers.get(algorithm.header) if algorithm else None
    if theirs and theirs != checksum:
        raise Transient(f"{operation}: the store has another checksum", code="BadDigest")
    return Written(etag, checksum, answer.headers.get("x-amz-version-id"))


def part_of(element: Element, checksum: str | None) -> ListedPart:
    """A Part of ListParts; ``checksum`` is the element that has it."""
    number, size = number_of(element.find("PartNumber")), number_of(element.find("Size"))
    return ListedPart(number, size, element.find("ETag") or "", element.find(checksum) if checksum else None)


def upload_of(element: Element, encoded: bool) -> ListedUpload:
    """An Upload of ListMultipartUploads; ``encoded``: its key is."""
    key = element.find("Key") or ""
    try:
        initiated = datetime.fromisoformat((element.find("Initiated") or "").replace("Z", "+00:00")).timestamp()
    except ValueError:
        initiated = None
    return ListedUpload(unquote_plus(key) if encoded else key, element.find("UploadId") or "", initiated)


def number_of(text: str | None) -> int:
    """A number; 0 where there is none."""
    try:
        return int(text or "0")
    except ValueError:
        raise Transient(f"a number can't be read: {(text or '')[:20]!r}") from None
