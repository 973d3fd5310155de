"""What tests of digests share: the texts of digests, and what requests say of them."""

from __future__ import annotations

from resumable.protocol import digests
from resumable.protocol.checksum import Checksum
from resumable.protocol.digests import RequestDigests


def text(data: bytes, *algorithms: str) -> str:
    hashes = digests.Hashes(algorithms or ("sha-256",))
    hashes.update(data)
    return hashes.text(algorithms or ("sha-256",)) or ""


def content(data: bytes, algorithm: str = "sha-256") -> RequestDigests:
    return RequestDigests((Checksum(algorithm, digests.read(text(data, algorithm))[algorithm]),))


def whole(data: bytes, *algorithms: str) -> RequestDigests:
    return RequestDigests(whole=text(data, *algorithms))
