"""What the two protocols say: requests as fields, and what an answer means. Pure.

Invariant: an answer that doesn't follow its protocol is never read as an offset. Specs: tus 1.0.0 (core, creation,
checksum, concatenation); draft-ietf-httpbis-resumable-upload in the newest version that the server knows.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import quote, urljoin

from attrs import frozen

from resumable.client.client_options import web_address
from resumable.client.effects import HttpReply
from resumable.client.exceptions import BadOption, TransferRefused
from resumable.client.patience import Failed
from resumable.protocol import metadata as metadatas

_LIMIT: Final = re.compile(r"(?:^|[,\s])max-append-size=(\d{1,15})(?=$|[\s,;])")
_DIGESTS: Final = {"sha256": "sha-256", "sha512": "sha-512"}
_ADDRESS: Final = "".join(map(chr, range(0x21, 0x7F)))
Pairs = list[tuple[str, str]]


@frozen(kw_only=True)
class ToCreate:
    """A new upload. ``size`` None: not known; ``sha256``: announced; ``partial``: of a concatenation; ``final``: the
    URLs that it is made of."""

    size: int | None
    metadata: Mapping[str, str | bytes]
    sha256: bytes | None = None
    partial: bool = False
    final: Sequence[str] = ()


@frozen(kw_only=True)
class Standing:
    """What the server says of an upload. ``complete``: it takes no more."""

    offset: int
    length: int | None = None
    complete: bool = False
    most: int | None = None
    """Bytes of one request."""


class Speech(Protocol):
    """One protocol."""

    name: str

    def creation(self, new: ToCreate) -> Pairs:
        """Fields of the POST."""

    def speaks(self, reply: HttpReply) -> bool:
        """Whether the answer to a creation is this protocol's."""

    def asking(self) -> Pairs:
        """Fields of HEAD and DELETE."""

    def standing(self, reply: HttpReply, expected: int | None) -> Standing:
        """Read of a successful answer. ``expected``: the offset to assume if it has none; None: it must have one.
        Raises Failed."""

    def appending(self, offset: int, last: bool, total: int | None, checksum: tuple[str, bytes] | None) -> Pairs:
        """Fields of a PATCH. ``last``: the upload ends with it; ``total``: its length, to be told now."""


def announced(sha256: bytes) -> tuple[str, str]:
    """The field that announces the digest of the whole, in a request of either protocol (RFC 9530)."""
    return "Repr-Digest", f"sha-256=:{b64encode(sha256).decode()}:"


class TusSpeech:
    """tus 1.0."""

    name = "tus"

    def creation(self, new: ToCreate) -> Pairs:
        """See `Speech`."""
        fields = self.asking()
        if new.final:
            fields.append(("Upload-Concat", "final;" + " ".join(new.final)))
        elif new.size is None:
            fields.append(("Upload-Defer-Length", "1"))
        else:
            fields.append(("Upload-Length", str(new.size)))
        if new.partial:
            fields.append(("Upload-Concat", "partial"))
        pairs = dict(new.metadata)
        if new.sha256 is not None:
            pairs["sha256"] = new.sha256.hex()
        if pairs:
            fields.append(("Upload-Metadata", metadatas.encode(pairs)))
        return fields

    def speaks(self, reply: HttpReply) -> bool:
        """See `Speech`."""
        return reply.get("tus-resumable") is not None

    def asking(self) -> Pairs:
        """See `Speech`."""
        return [("Tus-Resumable", "1.0.0")]

    def standing(self, reply: HttpReply, expected: int | None) -> Standing:
        """See `Speech`."""
        offset, length = _offset(reply, expected), number(reply, "upload-length")
        return Standing(offset=offset, length=length, complete=length is not None and offset == length)

    def appending(self, offset: int, last: bool, total: int | None, checksum: tuple[str, bytes] | None) -> Pairs:
        """See `Speech`."""
        fields = self.asking()
        fields += [("Content-Type", "application/offset+octet-stream"), ("Upload-Offset", str(offset))]
        if total is not None:
            fields.append(("Upload-Length", str(total)))
        if checksum is not None:
            fields.append(("Upload-Checksum", f"{checksum[0]} {b64encode(checksum[1]).decode()}"))
        return fields


class DraftSpeech:
    """The IETF draft, in the newest interop version that is known here."""

    name = "draft"

    def __init__(self) -> None:
        from resumable.protocol import draft

        self._version = (draft.VERSION_FIELD, str(max(draft.DIALECTS)))
        self._type = draft.CONTENT_TYPE

    def creation(self, new: ToCreate) -> Pairs:
        """See `Speech`. It has no content, so that the upload's URL is known before the first byte."""
        fields = [self._version, ("Upload-Complete", "?0")]
        if new.size is not None:
            fields.append(("Upload-Length", str(new.size)))
        texts = {key: value for key, value in new.metadata.items() if isinstance(value, str)}
        fields.append(("Content-Type", texts.get("filetype") or "application/octet-stream"))
        if name := texts.get("filename"):
            fields.append(("Content-Disposition", f"attachment; filename*=UTF-8''{quote(name, safe='')}"))
        if new.metadata:
            fields.append(("Upload-Metadata", metadatas.encode(new.metadata)))
        if new.sha256 is not None:
            fields.append(announced(new.sha256))
        return fields

    def speaks(self, reply: HttpReply) -> bool:
        """See `Speech`."""
        names = ("upload-complete", "upload-limit", "upload-draft-interop-version", "upload-offset")
        return any(reply.get(name) is not None for name in names)

    def asking(self) -> Pairs:
        """See `Speech`."""
        return [self._version]

    def standing(self, reply: HttpReply, expected: int | None) -> Standing:
        """See `Speech`."""
        offset, length = _offset(reply, expected), number(reply, "upload-length")
        bound = _LIMIT.search(reply.get("upload-limit") or "")
        complete = reply.get("upload-complete")
        done = complete == "?1" if complete is not None else expected is not None and reply.status == 200
        return Standing(offset=offset, length=length, complete=done, most=int(bound[1]) or None if bound else None)

    def appending(self, offset: int, last: bool, total: int | None, checksum: tuple[str, bytes] | None) -> Pairs:
        """See `Speech`. A checksum is its Content-Digest."""
        fields = [self._version, ("Content-Type", self._type), ("Upload-Offset", str(offset))]
        fields.append(("Upload-Complete", "?1" if last else "?0"))
        if checksum is not None and checksum[0] in _DIGESTS:
            fields.append(("Content-Digest", f"{_DIGESTS[checksum[0]]}=:{b64encode(checksum[1]).decode()}:"))
        return fields


def _offset(reply: HttpReply, expected: int | None) -> int:
    offset = number(reply, "upload-offset")
    if offset is None and expected is None:
        raise Failed(f"the answer has no Upload-Offset (status {reply.status})")
    return offset if offset is not None else expected or 0


def speech_of(name: str) -> Speech:
    """The protocol of this name."""
    return DraftSpeech() if name == "draft" else TusSpeech()


def new_url(base: str, reply: HttpReply) -> str:
    """The Location of the answer to a request at ``base``. Raises Failed."""
    location = reply.get("location")
    if not location:
        raise Failed(f"{base} answers {reply.status} without the Location of the upload")
    url = joined(base, location)
    if base.startswith("https://") and url.startswith("http://") and _host(base) == _host(url):
        # a server that doesn't know of the TLS before it; nothing is sent in clear for that
        url = joined(base, re.sub(r"^http://[^/]*", "", url) or "/")
    try:
        web_address(url)
    except BadOption as error:
        raise _unusable(base, url, "which is no address of http or https") from error
    if base.startswith("https://") and not url.startswith("https://"):
        raise _unusable(base, url, "which isn't encrypted: nothing is sent there")
    return url


def joined(base: str, location: str) -> str:
    """Where a Location leads: in characters of addresses only, so that a terminal can't obey them."""
    try:
        return urljoin(base, quote(location.encode("latin-1"), safe=_ADDRESS))
    except ValueError:
        return ""  # no address


def _unusable(base: str, url: str, why: str) -> TransferRefused:
    return TransferRefused(201, "", f"the upload is at {url[:200] or 'nowhere'}, {why}", base)


def _host(url: str) -> str:
    return re.sub(r":\d+$", "", url.split("/")[2].rpartition("@")[2])


def number(reply: HttpReply, name: str) -> int | None:
    """The size or offset in a field; None: there is none."""
    value = reply.get(name)
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 20 else None
