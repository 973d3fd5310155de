"""The requests that both protocols make: what a client asks for, whichever header fields it said it in.

Invariant: a request here is well-formed in itself; whether it fits its upload is decided in `rules`. A request of tus
1.0 finishes its upload when it reaches the length; one of the draft says so (``completes``), and then the end of its
content is the end of the upload.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resumable.protocol.checksum import Checksum
from resumable.protocol.concat import FinalUpload
from resumable.protocol.digests import NONE, RequestDigests


@dataclass(frozen=True, slots=True)
class Creation:
    """A POST that asks for an upload.

    ``length`` is None for a deferred one and for a final. ``metadata`` and ``concat_header`` are the fields' values,
    None when absent (``metadata`` also when empty): the former as received, the latter with paths for URLs.
    ``has_body`` tells creation-with-upload: the body is chunked or declared longer than nothing. ``completes``: see the
    top. ``draft``: it is made by the draft. ``at_most``: so many bytes may its body have; None: any number.
    """

    length: int | None
    deferred: bool
    metadata: str | None
    concat: Literal["partial"] | FinalUpload | None
    concat_header: str | None
    checksum: Checksum | None
    checksum_trailer: bool
    has_body: bool
    digests: RequestDigests = NONE
    completes: bool = True
    draft: bool = False
    at_most: int | None = None

    @property
    def is_checked(self) -> bool:
        """Whether nothing of the body may be kept before its end."""
        return self.checksum is not None or self.checksum_trailer or bool(self.digests.content)


@dataclass(frozen=True, slots=True)
class Append:
    """A PATCH: bytes from ``offset`` on. ``length`` is the Upload-Length it brings, for an upload that deferred it.
    ``completes``, ``draft`` and ``at_most``: see `Creation`."""

    offset: int
    length: int | None
    checksum: Checksum | None
    checksum_trailer: bool
    digests: RequestDigests = NONE
    completes: bool = True
    draft: bool = False
    at_most: int | None = None

    @property
    def is_checked(self) -> bool:
        """Whether nothing of the body may be kept before its end."""
        return self.checksum is not None or self.checksum_trailer or bool(self.digests.content)
