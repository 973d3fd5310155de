"""The extensions of tus, and what is said to requests that want one which is switched off.

Reason to change: an extension, or what can't be had without it. Invariant: an extension that isn't told in
Tus-Extension is never used for a new request; what was made with it before goes on. Pure. Spec: tus 1.0.0, extensions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from resumable.protocol.errors import BadRequest
from resumable.protocol.tus import EXTENSIONS, Append, Creation

NEEDED: Final[Mapping[str, str]] = {
    "creation-with-upload": "creation",
    "creation-defer-length": "creation",
    "checksum-trailer": "checksum",
    "concatenation": "creation",
    "concatenation-unfinished": "concatenation",
}
"""What an extension is nothing without."""


def without(disabled: Collection[str]) -> tuple[str, ...]:
    """The extensions that are left, in the usual order: less those that need one of ``disabled``, too."""
    left: list[str] = []
    for each in EXTENSIONS:  # none comes before what it needs
        if each not in disabled and NEEDED.get(each, each) in (*left, each):
            left.append(each)
    return tuple(left)


def check_creation(creation: Creation, extensions: Collection[str]) -> None:
    """Raises BadRequest where it needs one that isn't among ``extensions``."""
    if creation.concat is not None:
        _check("concatenation", extensions, "make the upload in one piece, without Upload-Concat")
    if creation.has_body:
        _check("creation-with-upload", extensions, "make the upload without a body, then send its bytes by PATCH")
    if creation.deferred:
        _check("creation-defer-length", extensions, "say the length of the upload in Upload-Length")
    if creation.checksum_trailer:
        check_trailer(extensions)


def check_append(append: Append, extensions: Collection[str]) -> None:
    """Raises BadRequest where it needs one that isn't among ``extensions``."""
    if append.checksum_trailer:
        check_trailer(extensions)


def check_trailer(extensions: Collection[str]) -> None:
    """Raises BadRequest unless a checksum may come as a trailer."""
    _check("checksum-trailer", extensions, "send the checksum in the header, or none")


def _check(name: str, extensions: Collection[str], instead: str) -> None:
    if name not in extensions:
        raise BadRequest(f"The extension {name} is switched off here: {instead}.")
