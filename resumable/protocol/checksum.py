"""The checksum extension: the algorithms of the standard library (`daemon.parts` adds others), their sizes, the field.

Invariant: every `Checksum` that leaves here names an algorithm that the caller offers. Spec: tus 1.0.0, Checksum.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from resumable.protocol.errors import BadRequest
from resumable.protocol.fields import base64, shown


class Digest(Protocol):
    """A running checksum."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""

    def digest(self) -> bytes:
        """The checksum of all bytes so far."""


class Crc32:
    """CRC-32 as in zlib and PNG (ISO 3309), four bytes, big-endian."""

    def __init__(self) -> None:
        self._crc = 0

    def update(self, data: bytes, /) -> None:
        """See `Digest`."""
        self._crc = zlib.crc32(data, self._crc)

    def digest(self) -> bytes:
        """See `Digest`."""
        return self._crc.to_bytes(4, "big")


# "The Server MUST support at least the SHA1 checksum algorithm identified by sha1. The names of the checksum
# algorithms MUST only consist of ASCII characters with the modification that uppercase characters are excluded."
STANDARD: Final[dict[str, Callable[[], Digest]]] = {
    "sha1": partial(hashlib.sha1, usedforsecurity=False),
    "md5": partial(hashlib.md5, usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "crc32": Crc32,
    "blake2b": hashlib.blake2b,
}
"""The algorithms of the standard library, those that most clients know first."""

SIZES: Final = {"sha1": 20, "md5": 16, "sha256": 32, "sha512": 64, "crc32": 4, "crc32c": 4, "blake2b": 64}
"""Bytes in a digest; an algorithm that is not named here is taken at any length."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """The checksum that a body must have."""

    algorithm: str
    digest: bytes

    @property
    def is_possible(self) -> bool:
        """Whether any bytes can have it: its length must be the algorithm's."""
        return len(self.digest) == SIZES.get(self.algorithm, len(self.digest))


def parse(value: str, algorithms: Collection[str]) -> Checksum:
    """An Upload-Checksum value; BadRequest if it is malformed or its algorithm is not among ``algorithms``.

    "The header MUST consist of the name of the used checksum algorithm and the Base64 encoded checksum separated
    by a space."
    """
    algorithm, _, encoded = value.partition(" ")
    if algorithm not in algorithms:
        # "400 Bad Request if the checksum algorithm is not supported by the server"
        offered = ", ".join(algorithms) or "those, as checksums are switched off"
        raise BadRequest(f"Upload-Checksum: the algorithm {shown(algorithm)} is not one of {offered}.")
    try:
        digest = base64(encoded)
    except ValueError as error:
        raise BadRequest(f"Upload-Checksum: {shown(encoded)} is not Base64.") from error
    if not digest:
        raise BadRequest(f"Upload-Checksum: the checksum that {algorithm} has made is missing.")
    return Checksum(algorithm, digest)
