"""The documents of S3, and the headers of its answers, as values.

Invariant: no entity is ever expanded and no document type is accepted; a document nests at most ten deep. A value is
complete, or Transient is raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

from attrs import frozen
from defusedxml import ElementTree

from resumable.httpclient.client import HttpAnswer
from resumable.remotes.errors import Transient
from resumable.remotes.s3.checksums import Algorithm

DEEPEST = 10


class BadXml(ValueError):
    """The document can't be read, or it is one that we don't want to read."""


@frozen
class Element:
    """An element of a document. Names are without their namespaces."""

    _element: Any

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._element.tag).rpartition("}")[2]

    @property
    def text(self) -> str:
        """The text before its first child."""
        return self._element.text or ""

    def find(self, name: str) -> str | None:
        """The text of the first child of that name."""
        return next((child.text.strip() for child in self.all(name)), None)

    def all(self, name: str) -> Iterator[Element]:
        """The children of that name."""
        return map(Element, self._element.iterfind(f"{{*}}{name}"))


def parse(document: bytes) -> Element:
    """The root element. Raises BadXml. The caller has bounded the document's size."""
    try:
        # white space in front of a document keeps the connection of a long CompleteMultipartUpload alive
        root = ElementTree.fromstring(document.strip(), forbid_dtd=True)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadXml(f"not XML, or none to be trusted: {error}") from None
    level = [root]
    for _ in range(DEEPEST):
        level = [child for each in level for child in each]
    if level:
        raise BadXml("the document is nested too deep")
    return Element(root)


def complete_document(parts: Sequence[Sequence[tuple[str, str]]]) -> bytes:
    """The body of CompleteMultipartUpload: for each part, in order, its (name, text) pairs."""
    rows = "".join(
        "<Part>" + "".join(f"<{name}>{escape(text)}</{name}>" for name, text in part) + "</Part>" for part in parts
    )
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<CompleteMultipartUpload xmlns="{namespace}">{rows}</CompleteMultipartUpload>'.encode()


@frozen
class Written:
    """The store's confirmation of a payload. ``checksum`` is the one that was sent and compared."""

    etag: str
    checksum: str | None = None
    version: str | None = None


@frozen
class ObjectHead:
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
    """The confirmation in an answer to PutObject or UploadPart; ``checksum`` is ours."""
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
