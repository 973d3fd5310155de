"""The IETF draft "Resumable Uploads for HTTP": header fields to typed requests, and the fields of its answers.

One table of dialects, the interop versions that clients speak, drives all of it. Invariants: a field that isn't what
its structured type says is ignored, as the draft wants; a request that leaves here is well-formed in itself. Nothing
here knows the stored uploads. Spec: draft-ietf-httpbis-resumable-upload-01 to -13; RFC 9651 (structured fields).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import http_sf

from resumable.protocol import digests
from resumable.protocol import metadata as metadatas
from resumable.protocol.errors import BadRequest, InconsistentLength, TooLarge, UnsupportedMediaType
from resumable.protocol.fields import Fields, shown
from resumable.protocol.requests import Append, Creation

CONTENT_TYPE: Final = "application/partial-upload"
VERSION_FIELD: Final = "Upload-Draft-Interop-Version"
_VERSION: Final = VERSION_FIELD.lower()
MARKS: Final = ("upload-complete", "upload-incomplete", _VERSION)
"""A request that has one of these fields, and no Tus-Resumable, is the draft's."""

_DESCRIBING: Final = ("content-type", "upload-metadata", "content-disposition", "content-encoding")
_DIGITS: Final = re.compile(r"[0-9]{1,15}")
_CODINGS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}){0,7}")
_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_QUOTED: Final = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_MEDIA_TYPE: Final = re.compile(rf"{_TOKEN}/{_TOKEN}[ \t]*(?:;[ \t]*(?:{_TOKEN}=(?:{_TOKEN}|{_QUOTED})[ \t]*)?)*")
"""RFC 9110, 8.3.1 and 5.6.6: more than a download has, which is careful for browsers."""
_DISPOSITION: Final = re.compile(rf"{_TOKEN}[ \t]*(?=;|$)")
_PARAMETER: Final = re.compile(rf';[ \t]*(?:({_TOKEN})[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;"]*))?[ \t]*')
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_EXTENDED: Final = re.compile(r"(utf-8|iso-8859-1)'[^']*'(\S+)", re.IGNORECASE)
_LARGEST: Final = 999_999_999_999_999
"""The greatest Integer of a structured field (RFC 9651, 3.3.1)."""


@dataclass(frozen=True, slots=True)
class DraftDialect:
    """What one interop version says in its own way.

    ``version`` None: the newest text, for a client that names no version, or one that isn't known; it gets no
    informational responses. ``inverted``: Upload-Incomplete stands for Upload-Complete. ``typed``: an append has the
    media type of `CONTENT_TYPE`. ``completes``: so does an append that doesn't say. ``age``: the key of the
    limit of an upload's time.
    """

    version: int | None
    inverted: bool = False
    typed: bool = True
    completes: bool = False
    age: str = "max-age"


NEWEST: Final = DraftDialect(None)
DIALECTS: Final[Mapping[int, DraftDialect]] = {
    3: DraftDialect(3, inverted=True, typed=False, completes=True, age="expires"),  # draft 01, iOS 17
    4: DraftDialect(4, inverted=True, typed=False, completes=True, age="expires"),  # draft 02
    5: DraftDialect(5, typed=False, completes=True, age="expires"),  # draft 03, iOS 18.0, tus-js-client
    6: DraftDialect(6, completes=True, age="expires"),  # drafts 04 and 05, iOS 18.1, tus-js-client
    7: DraftDialect(7),  # drafts 06 to 08
    8: DraftDialect(8),  # drafts 09 to 11, iOS 26.2
    9: DraftDialect(9),  # draft 12
    10: DraftDialect(10),  # draft 13 and later
}
_PLAIN: Final = {str(version): dialect for version, dialect in DIALECTS.items()}


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's bounds, in bytes; None: none. ``max_append`` is that of one request's content."""

    max_size: int | None = None
    min_append: int | None = None
    max_append: int | None = None

    def field(self, dialect: DraftDialect, max_age: float | None = None) -> str:
        """The value of Upload-Limit. ``max_age``: seconds until the upload expires."""
        return _limits(self, dialect.age, None if max_age is None else max(0, int(max_age)))


@lru_cache(64)  # uploads that are made in the same second have the same
def _limits(limits: Limits, age: str, max_age: int | None) -> str:
    known = {
        "max-size": limits.max_size,
        "min-append-size": limits.min_append,
        "max-append-size": limits.max_append,
        age: max_age,
    }
    said = [f"{name}={min(value, _LARGEST)}" for name, value in known.items() if value is not None]
    # "If the server does not apply any limits, it MUST use min-size=0"
    return ", ".join(said) or "min-size=0"


def is_draft(fields: Fields) -> bool:
    """Whether a request without Tus-Resumable is the draft's."""
    for name in MARKS:
        if fields.values(name):
            return True
    return _type(fields) == CONTENT_TYPE


def dialect_of(fields: Fields) -> DraftDialect:
    """The dialect that a request says it speaks."""
    values = fields.values(_VERSION)
    if len(values) == 1 and (known := _PLAIN.get(values[0])) is not None:
        return known
    version = _integer(fields, _VERSION)
    return NEWEST if version is None else DIALECTS.get(version, NEWEST)


def said_complete(dialect: DraftDialect, complete: bool) -> tuple[str, str]:
    """The name and value of the field that tells whether an upload is complete."""
    if dialect.inverted:
        return "Upload-Incomplete", "?0" if complete else "?1"
    return "Upload-Complete", "?1" if complete else "?0"


def parse_creation(fields: Fields, dialect: DraftDialect, content_length: int | None, limits: Limits) -> Creation:
    """A POST's header as a Creation. Raises BadRequest, InconsistentLength, TooLarge, and what
    `digests.of_request` does.

    ``content_length`` is in bytes: None for content whose end shows its length.
    """
    completes = _complete(fields, dialect)
    if completes is None:
        raise BadRequest(f"{said_complete(dialect, True)[0]} must be ?0 or ?1.")
    _check_size(content_length, completes, limits, 0)
    length = _integer(fields, "upload-length")
    if completes and content_length is not None:
        if length is not None and length != content_length:
            raise InconsistentLength(length, content_length)
        length = content_length
    metadata = _metadata(fields) if any(map(fields.values, _DESCRIBING)) else None
    return Creation(
        length=length,
        deferred=length is None,
        metadata=metadata,
        concat=None,
        concat_header=None,
        checksum=None,
        checksum_trailer=False,
        has_body=content_length != 0,
        digests=digests.of_request(fields, content_length, metadatas.parse(metadata) if metadata else None),
        completes=completes,
        draft=True,
        at_most=limits.max_append,
    )


def parse_append(fields: Fields, dialect: DraftDialect, content_length: int | None, limits: Limits) -> Append:
    """A PATCH's header as an Append. Raises UnsupportedMediaType, BadRequest, TooLarge, and what `digests.of_request`
    does."""
    if dialect.typed and _type(fields) != CONTENT_TYPE:
        raise UnsupportedMediaType(f"Content-Type must be {CONTENT_TYPE}.")
    offset = _integer(fields, "upload-offset")
    if offset is None:
        raise BadRequest("Upload-Offset must be a non-negative integer.")
    completes = _complete(fields, dialect)
    if completes is None:
        if not dialect.completes:
            raise BadRequest(f"{said_complete(dialect, True)[0]} must be ?0 or ?1.")
        completes = True
    _check_size(content_length, completes, limits, offset)
    return Append(
        offset=offset,
        length=_integer(fields, "upload-length"),
        checksum=None,
        checksum_trailer=False,
        digests=digests.of_request(fields, content_length),
        completes=completes,
        draft=True,
        at_most=limits.max_append,
    )


def _check_size(content_length: int | None, completes: bool, limits: Limits, offset: int) -> None:
    if content_length is None:
        return
    if limits.max_append is not None and content_length > limits.max_append:
        raise TooLarge(f"One request may have {limits.max_append} bytes at most, and not {content_length}.")
    empty = offset == 0 and content_length == 0
    if limits.min_append is not None and content_length < limits.min_append and not (completes or empty):
        # "except for requests completing the upload, and for the creation without content"
        raise BadRequest(f"A request must have {limits.min_append} bytes or more, unless it completes the upload.")


def _complete(fields: Fields, dialect: DraftDialect) -> bool | None:
    value = _item(fields, "upload-incomplete" if dialect.inverted else "upload-complete")
    if not isinstance(value, bool):  # "Other values MUST cause the entire header field to be ignored."
        return None
    return value is not dialect.inverted


def _integer(fields: Fields, name: str) -> int | None:
    """A non-negative Integer; None: it is absent, or to be ignored."""
    value = _item(fields, name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _item(fields: Fields, name: str) -> Any:
    """The bare value of an Item; None: it is absent, or to be ignored."""
    values = fields.values(name)
    if len(values) != 1:
        return None
    value = values[0]
    # the plain forms, which is what clients send: the library takes twenty times as long
    if value == "?1":
        return True
    if value == "?0":
        return False
    if _DIGITS.fullmatch(value):
        return int(value)
    try:
        parsed = http_sf.parse(value.encode("latin-1"), tltype="item")
    except ValueError:
        return None
    return parsed[0] if isinstance(parsed, tuple) else parsed


def _type(fields: Fields) -> str | None:
    values = fields.values("content-type")
    return values[0].partition(";")[0].rstrip(" \t").lower() if len(values) == 1 else None


def _metadata(fields: Fields) -> str | None:
    """The metadata of an upload, as Upload-Metadata has it: the client's own, which tus-js-client sends, and what the
    representation's fields say where that doesn't. Raises BadRequest."""
    given = metadatas.parse(_given(fields.values("upload-metadata")))
    pairs: dict[str, bytes | str] = dict(given)
    kind = _single(fields, "content-type")
    if kind is not None and _type(fields) != CONTENT_TYPE and metadatas.content_type(given) is None:
        if not _MEDIA_TYPE.fullmatch(kind):
            raise BadRequest(f"Content-Type is no media type: {shown(kind)}.")
        pairs["filetype"] = kind
    name = _filename(_single(fields, "content-disposition"))
    if name is not None and metadatas.filename(given) is None:
        pairs["filename"] = name
    codings = ", ".join(fields.values("content-encoding"))
    if codings:
        if not _CODINGS.fullmatch(codings):
            raise BadRequest(f"Content-Encoding is no list of codings: {shown(codings)}.")
        pairs[metadatas.ENCODING_KEY] = codings
    else:
        pairs.pop(metadatas.ENCODING_KEY, None)  # it is the field's alone
    return metadatas.encode(pairs) or None


def _given(values: Sequence[str]) -> str:
    """Upload-Metadata, which the draft doesn't know: one that is malformed is ignored."""
    if len(values) != 1:
        return ""
    try:
        metadatas.parse(values[0])
    except BadRequest:
        return ""
    return values[0]


def _single(fields: Fields, name: str) -> str | None:
    values = fields.values(name)
    if len(values) > 1:
        raise BadRequest(f"{name.title()} is given {len(values)} times; it may be given once.")
    return values[0] if values and values[0] else None


def _filename(disposition: str | None) -> str | None:
    """The file name in a Content-Disposition (RFC 6266), its extended form first. Raises BadRequest."""
    if disposition is None:
        return None
    with suppress(UnicodeError):
        disposition = disposition.encode("latin-1").decode()  # UTF-8 as it is, which curl and shells send
    parameters = _parameters(disposition)
    if parameters is None:
        raise BadRequest(f"Content-Disposition is malformed: {shown(disposition)}.")
    if (extended := _EXTENDED.fullmatch(parameters.get("filename*", ""))) is not None:
        return unquote(extended[2], extended[1], errors="replace")
    return parameters.get("filename")


def _parameters(disposition: str) -> dict[str, str] | None:
    """Of names that are given twice, the first; None: it is malformed. In linear time: `email` takes a third of a
    second for one that fills a request's header."""
    kind = _DISPOSITION.match(disposition)
    if kind is None or _CONTROLS.search(disposition):
        return None
    found: dict[str, str] = {}
    at = kind.end()
    while at < len(disposition):
        parameter = _PARAMETER.match(disposition, at)
        if parameter is None:
            return None
        name, value = parameter.groups()
        if name is not None:
            quoted = value.startswith('"')
            found.setdefault(name.lower(), re.sub(r'\\(["\\])', r"\1", value[1:-1]) if quoted else value.rstrip(" \t"))
        at = parameter.end()
    return found
