"""tus 1.0.0: header fields to typed requests, and the server's description of itself.

Invariants: a request that leaves here is well-formed in itself; whether it fits its upload is decided in `rules`. An
extension that isn't listed in Tus-Extension is never used for a new request; uploads that were made with it go on.
Nothing here knows the stored uploads. Spec: tus 1.0.0 (2016-03-25).

An append is checked in this order: 412 version, then (the caller) 404, 410 and 403 on a final upload, then
`parse_append`: 415 type, 400 for a malformed field; then `rules.admit_append`: 409 offset, 400 and 413 lengths.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache

from resumable.protocol import checksum as checksums
from resumable.protocol import concat as concats
from resumable.protocol import digests
from resumable.protocol import metadata as metadatas
from resumable.protocol.checksum import Checksum
from resumable.protocol.concat import FinalUpload
from resumable.protocol.errors import BadRequest, ChecksumMismatch, UnsupportedMediaType, UnsupportedVersion
from resumable.protocol.fields import Fields, listed, optional_size, shown, single, size
from resumable.protocol.requests import Append, Creation

VERSION = "1.0.0"
EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "checksum-trailer",
    "termination",
    "concatenation",
    "concatenation-unfinished",
)
NEEDED: Mapping[str, str] = {
    "creation-with-upload": "creation",
    "creation-defer-length": "creation",
    "checksum-trailer": "checksum",
    "concatenation": "creation",
    "concatenation-unfinished": "concatenation",
}
"""Extensions that need another one."""
CONTENT_TYPE = "application/offset+octet-stream"


def capabilities(
    max_size: int | None, algorithms: Collection[str], extensions: Sequence[str] = EXTENSIONS
) -> dict[str, str]:
    """The header fields of an answer to OPTIONS; no blanks in the lists, as tusgo does not trim them."""
    # "The Tus-Version response header MUST be a comma-separated list of protocol versions"
    answer = {"Tus-Version": VERSION}
    # "If no extensions are supported, the Tus-Extension header MUST be omitted."
    if extensions:
        answer["Tus-Extension"] = ",".join(extensions)
    # "The Server SHOULD set this header if there is a known hard limit."
    if max_size is not None:
        answer["Tus-Max-Size"] = str(max_size)
    # "The Tus-Checksum-Algorithm header MUST be included in the response to an OPTIONS request."
    if algorithms:
        answer["Tus-Checksum-Algorithm"] = ",".join(algorithms)
    return answer


def method(fields: Fields, actual: str) -> str:
    """The method that counts; BadRequest if X-HTTP-Method-Override is no method.

    T7: "a string which MUST be interpreted as the request's method by the Server, if the header is presented. The
    actual method of the request MUST be ignored."
    """
    override = single(fields, "x-http-method-override")
    if override is None:
        return actual
    if not (override.isascii() and override.isalpha()):
        raise BadRequest(f"X-Http-Method-Override must be a method, not {shown(override)}.")
    return override


def check_version(fields: Fields, instead: str = "") -> None:
    """UnsupportedVersion unless the request speaks 1.0.0, said exactly once. OPTIONS and GET are not asked.

    ``instead``: a sentence for the error, on what else is spoken.

    "If the version specified by the Client is not supported by the Server, it MUST respond with the 412
    Precondition Failed status ... In addition, the Server MUST NOT process the request."
    """
    values = fields.values("tus-resumable")
    if len(values) == 1 and values[0] == VERSION:
        return
    said = "is missing" if not values else f"says {shown(', '.join(values))}"
    raise UnsupportedVersion(f"Tus-Resumable {said}; this server speaks {VERSION}.{instead}", (VERSION,))


def parse_creation(fields: Fields, content_length: int | None, algorithms: Collection[str]) -> Creation:
    """A POST's header as a Creation; BadRequest, UnsupportedMediaType, or ChecksumMismatch for a checksum that can't
    match.

    ``content_length`` is in bytes: None for a chunked body, 0 when there is neither length nor transfer coding.
    """
    has_body = content_length != 0
    if has_body:
        # "The Client MUST include the Content-Type: application/offset+octet-stream header." Without a body any
        # type will do: aiotus sends application/octet-stream.
        _check_type(fields)
    concat_header = single(fields, "upload-concat")
    concat = None if concat_header is None else concats.parse(concat_header)
    if isinstance(concat, FinalUpload):
        _check_final(fields, has_body)
        concat_header = concat.header
        length = None
    else:
        length = _creation_length(fields)
    # tuspy sends an empty Upload-Metadata when it has none
    metadata = single(fields, "upload-metadata") or None
    said = digests.of_request(fields, content_length, None if metadata is None else metadatas.parse(metadata))
    checksum, trailer = _checksum(fields, content_length, algorithms)
    deferred = length is None and not isinstance(concat, FinalUpload)
    return Creation(length, deferred, metadata, concat, concat_header, checksum, trailer, has_body, said)


def check_patch_type(fields: Fields) -> None:
    """UnsupportedMediaType unless this is an append; `parse_append` asks it too.

    "All PATCH requests MUST use Content-Type: application/offset+octet-stream, otherwise the server SHOULD return a
    415 Unsupported Media Type status."
    """
    _check_type(fields)


def parse_append(fields: Fields, content_length: int | None, algorithms: Collection[str]) -> Append:
    """A PATCH's header as an Append; UnsupportedMediaType first, then BadRequest, then ChecksumMismatch.

    ``content_length`` is as for `parse_creation`. Upload-Concat and Upload-Metadata mean nothing here and are
    ignored: tus-js-client sends the former with the appends to its partial uploads.
    """
    check_patch_type(fields)
    offset = single(fields, "upload-offset")
    if offset is None:
        raise BadRequest("Upload-Offset is missing.")
    checksum, trailer = _checksum(fields, content_length, algorithms)
    said = digests.of_request(fields, content_length)
    return Append(size("upload-offset", offset), optional_size(fields, "upload-length"), checksum, trailer, said)


def trailer_checksum(trailers: Mapping[str, str], announced: bool, algorithms: Collection[str]) -> Checksum | None:
    """The checksum in the trailer section (by lower-case name); BadRequest if it was ``announced`` and is not there.

    One that was not announced is parsed and returned too: the caller decides whether it comes too late.
    """
    value = trailers.get("upload-checksum")
    if value is not None:
        return checksums.parse(value, algorithms)
    if announced:
        raise BadRequest("The Trailer field announced an Upload-Checksum that did not come.")
    return None


def http_date(seconds: float) -> str:
    """Seconds since the epoch as an IMF-fixdate (RFC 9110, 5.6.7), for Upload-Expires (T38)."""
    return _http_date(int(seconds))


@lru_cache(maxsize=64)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _check_type(fields: Fields) -> None:
    value = single(fields, "content-type")
    # RFC 9110, 8.3.1: "The type and subtype tokens are case-insensitive", and parameters may follow.
    if value is None or value.partition(";")[0].rstrip(" \t").lower() != CONTENT_TYPE:
        said = "missing" if value is None else shown(value)
        raise UnsupportedMediaType(f"Content-Type must be {CONTENT_TYPE}; it is {said}.")


def _creation_length(fields: Fields) -> int | None:
    """The length, None where it is deferred: "The request MUST include one of the following headers"."""
    length = optional_size(fields, "upload-length")
    defer = single(fields, "upload-defer-length")
    if defer is not None and defer != "1":
        # "If the Upload-Defer-Length header contains any other value than 1 the server should return a 400"
        raise BadRequest(f"Upload-Defer-Length must be 1, not {shown(defer)}.")
    if length is None and defer is None:
        raise BadRequest("Upload-Length or Upload-Defer-Length: 1 is missing.")
    if length is not None and defer is not None:
        # "If the length of an upload is not deferred, this header MUST be omitted."
        raise BadRequest("Upload-Length and Upload-Defer-Length exclude each other.")
    return length


def _check_final(fields: Fields, has_body: bool) -> None:
    # "The Client MUST NOT include the Upload-Length header in the final upload creation."
    for name in ("upload-length", "upload-defer-length"):
        if fields.values(name):
            raise BadRequest(f"{name.title()} does not go with Upload-Concat: final.")
    if has_body:
        raise BadRequest("Upload-Concat: a final upload is made of its partial uploads and takes no body.")


def _checksum(fields: Fields, content_length: int | None, algorithms: Collection[str]) -> tuple[Checksum | None, bool]:
    """The checksum in the header, and whether one is announced as a trailer."""
    value = single(fields, "upload-checksum")
    # "If the hash cannot be calculated at the beginning of the upload, it MAY be included as a trailer."
    announced = "upload-checksum" in listed(fields, "trailer")
    if announced and content_length is not None:
        raise BadRequest("Trailer announces an Upload-Checksum, but only a chunked body has trailers.")
    if value is None:
        return None, announced
    if announced:
        raise BadRequest("Upload-Checksum is in the header and announced as a trailer.")
    checksum = checksums.parse(value, algorithms)
    if not checksum.is_possible:
        raise ChecksumMismatch(f"Upload-Checksum: no body has a checksum by {checksum.algorithm} of that length.")
    return checksum, False


def extensions_without(disabled: Collection[str]) -> tuple[str, ...]:
    """The extensions in the usual order, less ``disabled`` and those that need one of these."""
    left: list[str] = []
    for each in EXTENSIONS:  # none comes before those that it needs
        if each not in disabled and NEEDED.get(each, each) in (*left, each):
            left.append(each)
    return tuple(left)


def check_creation_extensions(creation: Creation, extensions: Collection[str]) -> None:
    """Raises BadRequest where it needs one that isn't among ``extensions``."""
    if creation.concat is not None:
        _check("concatenation", extensions, "make the upload in one piece, without Upload-Concat")
    if creation.has_body:
        _check("creation-with-upload", extensions, "make the upload without a body, then send its bytes by PATCH")
    if creation.deferred:
        _check("creation-defer-length", extensions, "say the length of the upload in Upload-Length")
    if creation.checksum_trailer:
        check_trailer(extensions)


def check_append_extensions(append: Append, extensions: Collection[str]) -> None:
    """Raises BadRequest where it needs one that isn't among ``extensions``."""
    if append.checksum_trailer:
        check_trailer(extensions)


def check_trailer(extensions: Collection[str]) -> None:
    """Raises BadRequest unless a checksum may come as a trailer."""
    _check("checksum-trailer", extensions, "send the checksum in the header, or none")


def _check(name: str, extensions: Collection[str], instead: str) -> None:
    if name not in extensions:
        raise BadRequest(f"The extension {name} is switched off here: {instead}.")
