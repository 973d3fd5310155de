"""The fields that describe a download: they let a browser save it, and never do anything else with it.

Invariant: no word of an uploader makes a browser run, style or lay out anything: types come from a short list,
everything is an attachment unless the operator wants pictures and the like shown, and names hold no path and no control
character. Spec: RFC 9110 sections 8.3, 8.6 and 8.8, RFC 6266, RFC 8187, the Fetch standard's nosniff, Content Security
Policy Level 3.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from resumable.http.request import StreamingRequest
from resumable.model.upload import Upload
from resumable.protocol import metadata, tus
from resumable.protocol.downloads import Validators
from resumable.protocol.names import disposition

PLAIN: Final = "application/octet-stream"
_IMAGES: Final = ("avif", "bmp", "gif", "heic", "heif", "jpeg", "png", "tiff", "webp")
_APPLICATIONS: Final = (
    "gzip", "json", "msword", "ogg", "pdf", "rtf", "vnd.ms-excel", "vnd.ms-powerpoint", "vnd.rar", "x-7z-compressed",
    "x-bzip2", "x-tar", "x-xz", "zip", "zstd",
)  # fmt: skip
_AUDIO: Final = (
    "3gpp", "3gpp2", "aac", "ac3", "aiff", "amr", "amr-wb", "basic", "eac3", "flac", "matroska", "midi", "mp3", "mp4",
    "mpeg", "ogg", "opus", "vnd.wave", "vorbis", "wav", "wave", "webm", "x-aac", "x-aiff", "x-flac", "x-m4a",
    "x-matroska", "x-midi", "x-ms-wma", "x-wav",
)  # fmt: skip
_VIDEO: Final = (
    "3gpp", "3gpp2", "av1", "h264", "h265", "matroska", "mp2t", "mp4", "mpeg", "mpv", "ogg", "quicktime", "vp8", "vp9",
    "webm", "x-flv", "x-m4v", "x-matroska", "x-ms-wmv", "x-msvideo",
)  # fmt: skip
# A suffix makes a type another one: a type that ends in +xml is laid out and run as XML.
_OFFICE: Final = re.compile(r"application/vnd\.(?:openxmlformats-officedocument|oasis\.opendocument)\.[a-z0-9.-]+")
_PDF: Final = "application/pdf"
_SHOWN: Final = frozenset(
    [
        _PDF,
        *(f"image/{each}" for each in _IMAGES),
        *(f"audio/{each}" for each in _AUDIO),
        *(f"video/{each}" for each in _VIDEO),
    ]
)
"""What browsers show, and can be let show."""
_HARMLESS: Final = _SHOWN | {"text/plain", "text/csv", *(f"application/{each}" for each in _APPLICATIONS)}

_POLICY: Final = "default-src 'none'"
# A browser makes a page for a picture or a film, with styles of its own, and fetches the film once more.
_SHOWING: Final = f"sandbox; {_POLICY}; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'"
# No browser's viewer of PDF works in a sandbox. They run a document's scripts apart from the page's origin.
_SHOWING_PDF: Final = f"{_POLICY}; object-src 'self'; style-src 'unsafe-inline'"


def safe_type(declared: str | None) -> str:
    """The declared media type where it is one that no browser runs, styles with or lays out; else plain bytes.

    Of its parameters only ``charset=utf-8`` of a text is kept.
    """
    kind, _, parameters = (declared or "").lower().partition(";")
    kind = kind.strip(" ")
    if kind not in _HARMLESS and not _OFFICE.fullmatch(kind):
        return PLAIN
    is_utf_8 = parameters.replace('"', "").strip(" ") == "charset=utf-8"
    return f"{kind}; charset=utf-8" if is_utf_8 and kind.startswith("text/") else kind


def described(upload: Upload, inline: bool) -> tuple[str, str]:
    """The values of Content-Type and Content-Disposition; ``inline``: browsers may show types that they can show."""
    known = metadata.parse(upload.metadata or "")
    kind = safe_type(metadata.content_type(known))
    way = "inline" if inline and kind in _SHOWN else "attachment"
    return kind, disposition(metadata.filename(known), way)


def validators(upload: Upload, now: float) -> Validators:
    """Of a finished upload, which never changes. ``now``: seconds since the epoch.

    RFC 9110 section 8.8.2.1: a time of modification in the future is replaced by now.
    """
    finished = upload.finished_at or 0.0
    state = sha256(f"{upload.id} {upload.length} {finished!r}".encode()).hexdigest()
    return Validators(f'"{state[:32]}"', int(min(finished, now)))


def set_validators(request: StreamingRequest, state: Validators) -> None:
    """The fields that 200, 206 and 304 have. To be asked again before each use: access may have been withdrawn."""
    request.set_field(b"etag", state.etag.encode())
    request.set_field(b"last-modified", tus.http_date(state.modified).encode())
    request.set_field(b"cache-control", b"private, no-cache")


_DESCRIBING: Final = (
    b"content-type", b"content-disposition", b"x-content-type-options", b"content-security-policy", b"accept-ranges",
    b"content-range", b"etag", b"last-modified",
)  # fmt: skip


def undescribe(request: StreamingRequest) -> None:
    """Take the fields back: there will be no download."""
    for name in _DESCRIBING:
        request.responseHeaders.removeHeader(name)


def describe(request: StreamingRequest, upload: Upload, inline: bool) -> None:
    """The fields of a download with a body. The browser saves it, or may show it, and never guesses at its type."""
    kind, name = described(upload, inline)
    policy = f"sandbox; {_POLICY}"
    if name.startswith("inline"):
        policy = _SHOWING_PDF if kind == _PDF else _SHOWING
    request.set_field(b"content-type", kind.encode())
    request.set_field(b"content-disposition", name.encode())
    request.set_field(b"x-content-type-options", b"nosniff")
    request.set_field(b"content-security-policy", policy.encode())
    request.set_field(b"accept-ranges", b"bytes")
