"""What a download says of itself: fields that let a browser save it, and never do anything else with it.

Reason to change: how files are described to clients. Invariant: nothing that an uploader said makes a browser run,
style or lay out anything: types come from a short list, everything is an attachment, and names hold no path and no
control character. Spec: RFC 9110 sections 8.3, 8.6 and 8.8, RFC 6266, the Fetch standard's nosniff.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from resumable.http.streaming import StreamingRequest
from resumable.interfaces import Upload
from resumable.protocol import metadata, tus
from resumable.protocol.conditions import Validators
from resumable.protocol.names import disposition

PLAIN: Final = "application/octet-stream"
_IMAGES: Final = ("avif", "bmp", "gif", "heic", "heif", "jpeg", "png", "tiff", "webp")
_APPLICATIONS: Final = (
    "gzip", "json", "msword", "ogg", "pdf", "rtf", "vnd.ms-excel", "vnd.ms-powerpoint", "vnd.rar", "x-7z-compressed",
    "x-bzip2", "x-tar", "x-xz", "zip", "zstd",
)  # fmt: skip
_OFFICE: Final = ("application/vnd.openxmlformats-officedocument.", "application/vnd.oasis.opendocument.")
_HARMLESS: Final = frozenset(
    [
        "text/plain",
        "text/csv",
        *(f"image/{each}" for each in _IMAGES),
        *(f"application/{each}" for each in _APPLICATIONS),
    ]
)


def safe_type(declared: str | None) -> str:
    """The declared media type where it is one that no browser runs, styles with or lays out; else plain bytes.

    Of its parameters only ``charset=utf-8`` of a text is kept.
    """
    kind, _, parameters = (declared or "").lower().partition(";")
    kind = kind.strip(" ")
    if not (kind in _HARMLESS or kind.startswith(("audio/", "video/", *_OFFICE))):
        return PLAIN
    is_utf_8 = parameters.replace('"', "").strip(" ") == "charset=utf-8"
    return f"{kind}; charset=utf-8" if is_utf_8 and kind.startswith("text/") else kind


def described(upload: Upload) -> tuple[str, str]:
    """The values of Content-Type and Content-Disposition."""
    known = metadata.parse(upload.metadata or "")
    return safe_type(metadata.content_type(known)), disposition(metadata.filename(known))


def validators(upload: Upload, now: float) -> Validators:
    """Of a finished upload, which never changes. ``now``: seconds since the epoch.

    8.8.2.1: what would be modified in the future was modified now.
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


def describe(request: StreamingRequest, upload: Upload) -> None:
    """The fields of a download with a body. The browser saves it and never guesses at its type."""
    kind, name = described(upload)
    request.set_field(b"content-type", kind.encode())
    request.set_field(b"content-disposition", name.encode())
    request.set_field(b"x-content-type-options", b"nosniff")
    request.set_field(b"content-security-policy", b"sandbox; default-src 'none'")
    request.set_field(b"accept-ranges", b"bytes")
