"""Digests of a request's content and of a whole upload: the fields, and the texts that the catalog keeps.

A text is a dictionary of RFC 9530 with the algorithms that are known here, ``sha-256=:...:, sha-512=:...:``.

Invariants: a field that can't be parsed is as good as absent, and so is an algorithm that isn't known here, as RFC 9530
lets a recipient ignore them; a digest of a known one is right in type and length, or refused. Nothing here does I/O.
Specs: RFC 9530; RFC 9651 (structured fields); draft-ietf-httpapi-digest-fields-problem-types.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import http_sf

from resumable.protocol import metadata as metadatas
from resumable.protocol.checksum import Checksum, Digest
from resumable.protocol.errors import BadRequest, ChecksumMismatch, DigestMismatch, InvalidDigest, TusError
from resumable.protocol.fields import Fields, base64

ALGORITHMS: Final[Mapping[str, Callable[[], Digest]]] = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
"""The "Active" ones of RFC 9530's registry, by their keys there."""
SIZES: Final = {"sha-256": 32, "sha-512": 64}
NAMES: Final = {"sha256": "sha-256", "sha512": "sha-512"}
"""Keys by the names that operators use."""
CONTENT, WHOLE = "Content-Digest", "Repr-Digest"
WANTED: Final = "sha-256=10, sha-512=9"
"""Our own preference, for Want-Content-Digest and Want-Repr-Digest."""
METADATA: Final = "sha256"
"""The key of Upload-Metadata by which a tus client announces the digest of its file."""

PROPERTY: Final = "repr-digest"
"""The key of an object's metadata that has its digests, in stores that keep metadata."""

_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class RequestDigests:
    """What a request says of digests. ``content``: all that its body must have, by keys of `ALGORITHMS`. ``whole``:
    the text of those that the whole upload must have; None: it says nothing of it."""

    content: Sequence[Checksum] = ()
    whole: str | None = None


NONE: Final = RequestDigests()


def of_request(
    fields: Fields, content_length: int | None, metadata: Mapping[str, bytes] | None = None
) -> RequestDigests:
    """What Content-Digest and Repr-Digest say, and the `METADATA` of a new upload.

    ``content_length`` is as for `tus.parse_creation`. Raises InvalidDigest; BadRequest for metadata that is no digest;
    DigestMismatch where both announce, and differ, and for a body of no bytes that has another digest.
    """
    if not (fields.values("content-digest") or fields.values("repr-digest") or (metadata and METADATA in metadata)):
        return NONE
    content = [Checksum(algorithm, value) for algorithm, value in _digests(fields, CONTENT).items()]
    if content_length == 0:
        for each in content:
            check_content(each, ALGORITHMS[each.algorithm]().digest())
    whole = render(_digests(fields, WHOLE)) or None
    if metadata is not None and METADATA in metadata:
        whole = merged(render({"sha-256": _of_metadata(metadata[METADATA])}), whole)
    return RequestDigests(tuple(content), whole)


def check_content(expected: Checksum, found: bytes) -> None:
    """Raises DigestMismatch unless the body's digest is the one of its Content-Digest."""
    if expected.digest != found:
        raise DigestMismatch(
            "The body does not match its Content-Digest; nothing of it was kept.",
            *(CONTENT, expected.algorithm, http_sf.ser(expected.digest)),
        )


def merged(recorded: str | None, said: str | None) -> str | None:
    """All that was announced, or is known, of a whole upload. Raises DigestMismatch for another digest by the same
    algorithm."""
    if said is None:
        return recorded
    before = read(recorded)
    for algorithm, digest in read(said).items():
        if before.setdefault(algorithm, digest) != digest:
            raise DigestMismatch(
                f"The whole upload has another {algorithm} digest, or another was announced before.",
                *(WHOLE, algorithm, http_sf.ser(digest)),
            )
    return render(before) or None


def lacking(announced: str | None, digest: str | None) -> Sequence[str]:
    """The algorithms by which the client has announced a digest, and that ``digest`` doesn't have."""
    if announced is None:
        return ()
    return [algorithm for algorithm in read(announced) if algorithm not in read(digest)]


def is_settled(announced: str | None, digest: str | None) -> bool:
    """Whether the upload has all digests that were announced of it."""
    return announced is None or not (lacking(announced, digest) or _differing(announced, digest))


def refusal(announced: str | None, digest: str | None, draft: bool) -> TusError | None:
    """The error for an upload that has another digest than its client has announced, by the protocol that it was made
    by; None: nothing is wrong, as far as ``digest`` goes."""
    algorithm = _differing(announced, digest)
    if algorithm is None:
        return None
    if draft:
        provided = http_sf.ser(read(announced)[algorithm])
        return DigestMismatch(f"{_DIFFERS.format(algorithm)}.", WHOLE, algorithm, provided)
    return ChecksumMismatch(f"{_DIFFERS.format(algorithm)}: delete the upload, and begin anew.")


_DIFFERS: Final = "The upload has another {} digest than was announced, and is not finished"


def _differing(announced: str | None, digest: str | None) -> str | None:
    if announced is None or digest is None:
        return None
    found = read(digest)
    return next((each for each, value in read(announced).items() if found.get(each, value) != value), None)


def read(text: str | None) -> dict[str, bytes]:
    """The digests of such a text; None has none."""
    if text is None:
        return {}
    return {name: value for name, value in _dictionary(text).items() if name in SIZES and isinstance(value, bytes)}


def render(found: Mapping[str, bytes]) -> str:
    """The text of these digests, in the order of `ALGORITHMS`; empty without any."""
    ordered: dict[str, Any] = {name: found[name] for name in ALGORITHMS if name in found}
    return http_sf.ser(ordered) if ordered else ""


def joined(one: str | None, other: str | None) -> str | None:
    """The digests of both texts; where both have one, that of ``other``."""
    return render({**read(one), **read(other)}) or None


def object_metadata(header: str | None, digest: str | None) -> dict[str, bytes]:
    """The pairs of an Upload-Metadata value for an object in a store, with the upload's digest under `PROPERTY`."""
    pairs = metadatas.parse(header or "")
    return pairs if digest is None else {**pairs, PROPERTY: digest.encode("ascii")}


def wanted(fields: Fields, name: str, offered: Iterable[str]) -> str | None:
    """The algorithm among those ``offered`` that the field ``name`` (lower-case) wants most; None: it wants none.

    RFC 9530, 4: "a value of 0 means not acceptable, 1 is least preferred, and 10 is most preferred".
    """
    says = _dictionary(", ".join(fields.values(name)))
    ranks = {each: says[each] for each in offered if isinstance(says.get(each), int) and says[each] is not True}
    ranks = {each: rank for each, rank in ranks.items() if isinstance(rank, int) and 0 < rank <= 10}
    return max(ranks, key=lambda each: ranks[each], default=None)  # type: ignore[arg-type, return-value]


def chosen(fields: Fields, name: str, digest: str | None) -> str | None:
    """The part of the text ``digest`` that an answer has: what the field ``name`` wants most, all without that field;
    None: nothing of it is wanted."""
    if digest is None or not fields.values(name):
        return digest
    found = read(digest)
    algorithm = wanted(fields, name, found)
    return None if algorithm is None else render({algorithm: found[algorithm]})


class Hashes:
    """Running digests of the same bytes, by keys of `ALGORITHMS`."""

    __slots__ = ("_running",)

    def __init__(self, algorithms: Collection[str]) -> None:
        self._running = {name: ALGORITHMS[name]() for name in ALGORITHMS if name in algorithms}

    def __bool__(self) -> bool:
        return bool(self._running)

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""
        for each in self._running.values():
            each.update(data)

    def digest(self, algorithm: str) -> bytes:
        """The digest of all bytes so far."""
        return self._running[algorithm].digest()

    def text(self, algorithms: Collection[str]) -> str | None:
        """The text of these."""
        return render({name: self.digest(name) for name in algorithms}) or None


def _digests(fields: Fields, header: str) -> dict[str, bytes]:
    found = {}
    for algorithm, value in _dictionary(", ".join(fields.values(header.lower()))).items():
        size = SIZES.get(algorithm)
        if size is None:
            continue
        if not isinstance(value, bytes):
            raise InvalidDigest(header, algorithm, "the digest is not a byte sequence")
        if len(value) != size:
            raise InvalidDigest(header, algorithm, f"the digest is not {size} bytes long")
        found[algorithm] = value
    return found


def _dictionary(text: str) -> dict[str, object]:
    """The members, without their parameters; an inner list is no use here. Empty if it can't be parsed."""
    if not text:
        return {}
    try:
        found = http_sf.parse(text.encode("latin-1"), tltype="dictionary")
    except (http_sf.StructuredFieldError, ValueError):
        return {}
    assert isinstance(found, dict)
    return {name: item[0] if isinstance(item, tuple) else item for name, item in found.items()}


def _of_metadata(value: bytes) -> bytes:
    """The 32 bytes: themselves, or in hexadecimal digits or Base64. Raises BadRequest."""
    if len(value) == 32:
        return value
    if len(value) == 64 and _HEX.issuperset(value):
        return bytes.fromhex(value.decode("ascii"))
    try:
        digest = base64(value.decode("ascii"))
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise BadRequest(
            f"Upload-Metadata: {METADATA} must be the 32 bytes of the file's SHA-256, or these in hex or Base64."
        )
    return digest
