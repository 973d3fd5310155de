"""Upload-Metadata: its grammar, and the file name and type that a download takes from it.

Invariant: a header that `parse` accepted may be echoed as it is, and text that leaves `filename` and `content_type`
may stand in a header and names no path. Spec: tus 1.0.0, Creation, Upload-Metadata; RFC 4648 section 4.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Mapping
from typing import Final

from resumable.protocol import names
from resumable.protocol.errors import BadRequest
from resumable.protocol.fields import base64, shown

MAX_BYTES: Final = 16 * 1024
"""The longest header that is taken."""

ENCODING_KEY: Final = "contentEncoding"
"""The key that has the Content-Encoding of an upload that was made by the draft."""

_FILENAME_KEYS = ("filename", "name")
_TYPE_KEYS = ("filetype", "type", "contentType")
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,127}"
_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}(?:[ ]?;[ ]?{_TOKEN}=(?:{_TOKEN}|"[A-Za-z0-9 !#-.:;=_-]*"))*')


def parse(header: str) -> dict[str, bytes]:
    """The pairs of an Upload-Metadata value, in order; an empty one has none. BadRequest if it is malformed."""
    # "Servers SHOULD carefully validate metadata values ... to avoid header smuggling": the echo is printable
    # ASCII from end to end, which leaves no line end to smuggle with.
    if not (header.isascii() and header.isprintable()):
        raise BadRequest("Upload-Metadata may hold printable ASCII characters only.")
    if len(header) > MAX_BYTES:
        raise BadRequest(f"Upload-Metadata is longer than {MAX_BYTES} bytes.")
    pairs: dict[str, bytes] = {}
    if not header or header.isspace():
        return pairs
    # "MUST consist of one or more comma-separated key-value pairs. The key and value MUST be separated by a space."
    for pair in header.split(","):
        # "The value MAY be empty. In these cases, the space ... MAY be left out." tus-js-client leaves it in.
        key, _, value = pair.strip(" ").partition(" ")
        if not key:
            # "The key MUST NOT contain spaces and commas and MUST NOT be empty."
            raise BadRequest("Upload-Metadata has an empty key.")
        if key in pairs:
            # "All keys MUST be unique."
            raise BadRequest(f"Upload-Metadata has the key {shown(key)} twice.")
        try:
            # "the value MUST be Base64 encoded"
            pairs[key] = base64(value)
        except ValueError as error:
            raise BadRequest(f"Upload-Metadata: the value of {shown(key)} is not Base64.") from error
    return pairs


def encode(mapping: Mapping[str, bytes | str]) -> str:
    """The header for these pairs, text as UTF-8; ValueError for a key that cannot be sent."""
    pairs = []
    for key, value in mapping.items():
        if not key or not key.isascii() or not key.isprintable() or " " in key or "," in key:
            raise ValueError(f"not a metadata key: {key!r}")
        data = value.encode() if isinstance(value, str) else value
        pairs.append(f"{key} {b2a_base64(data, newline=False).decode()}" if data else key)
    return ",".join(pairs)


def filename(metadata: Mapping[str, bytes]) -> str | None:
    """The name that the client gave the file, as `names.shown` leaves it; None if none is left."""
    return next((name for text in _texts(metadata, _FILENAME_KEYS) if (name := names.shown(text))), None)


def content_type(metadata: Mapping[str, bytes]) -> str | None:
    """The media type that the client gave the file, if it is well-formed (RFC 9110, 8.3.1); else None."""
    return next((text for text in _texts(metadata, _TYPE_KEYS) if _TYPE.fullmatch(text)), None)


def content_encoding(header: str) -> str | None:
    """The codings that the bytes of an upload are in, as a draft's client said; None: there are none."""
    return next(iter(_texts(parse(header), (ENCODING_KEY,))), None)


def _texts(metadata: Mapping[str, bytes], keys: tuple[str, ...]) -> list[str]:
    texts = []
    for key in keys:
        try:
            texts.append(metadata[key].decode())
        except (KeyError, UnicodeDecodeError):
            continue
    return texts
