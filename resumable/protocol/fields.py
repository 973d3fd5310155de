"""Header fields to plain values.

Invariant: a field that may be given once is never guessed from several, and a number is never read from anything but
ASCII digits. Spec: RFC 9110 section 5, RFC 4648 section 4.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Final, Protocol

from resumable.protocol.errors import BadRequest

LARGEST: Final = 2**63 - 1
"""The greatest size or offset: the largest file offset, and the largest integer in a catalog."""


class Fields(Protocol):
    """The header fields of one request."""

    def values(self, name: str) -> Sequence[str]:
        """The value of every line of the lower-case ``name``, in order: latin-1 text without white space around it."""


def shown(value: str) -> str:
    """A client's value for an error's detail: ASCII, quoted, at most about 50 characters."""
    return ascii(value if len(value) <= 48 else value[:45] + "...")


def single(fields: Fields, name: str) -> str | None:
    """The value of a field that may be given once; BadRequest if there are several, even equal ones.

    RFC 9110, 5.3: "a sender MUST NOT generate multiple field lines with the same name in a message" unless the
    field is defined as a list; two parties that pick different ones is how requests are smuggled.
    """
    values = fields.values(name)
    if not values:
        return None
    if len(values) > 1:
        raise BadRequest(f"{name.title()} is given {len(values)} times; it may be given once.")
    return values[0]


def size(name: str, value: str) -> int:
    """The number in ``value``: 1 to 19 ASCII digits, at most LARGEST; else BadRequest.

    T1: "The value MUST be a non-negative integer."
    """
    # isdigit() alone knows "²" and Arabic digits; int() alone knows "+1", " 1" and "1_0".
    if value.isascii() and value.isdigit() and len(value) <= 19:
        number = int(value)
        if number <= LARGEST:
            return number
        raise BadRequest(f"{name.title()} is more than {LARGEST}.")
    raise BadRequest(f"{name.title()} must be a non-negative integer of at most 19 digits, not {shown(value)}.")


def optional_size(fields: Fields, name: str) -> int | None:
    """The `size` in a field that may be absent."""
    value = single(fields, name)
    return None if value is None else size(name, value)


def base64(text: str) -> bytes:
    """RFC 4648, 4, with nothing outside the alphabet and all of the padding; ValueError otherwise."""
    if len(text) % 4:
        raise ValueError("length is not a multiple of four")
    return binascii.a2b_base64(text, strict_mode=True)


def listed(fields: Fields, name: str) -> list[str]:
    """The elements of a comma-separated field, over all its lines, lower-case, less empty ones (RFC 9110, 5.6.1)."""
    return [item for value in fields.values(name) for part in value.split(",") if (item := part.strip(" \t").lower())]
