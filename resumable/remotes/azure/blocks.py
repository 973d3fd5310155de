"""The names of blocks.

One reason to change: how it is told whose block it is, and which. Pure.

Invariant: a name says the upload, the offset and the size, so it stands for the same bytes for ever, whatever was
staged, aborted or planned before; all names have the same length, as the store demands, and at most its 64 bytes.
Source: https://learn.microsoft.com/rest/api/storageservices/put-block (block ids, 100,000 uncommitted blocks).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from resumable.remotes.plan import MIB, TIB, Limits, Part, Plan

LIMITS = Limits(smallest_part=1, largest_part=4000 * MIB, parts=50_000, largest_object=50_000 * 4000 * MIB)
"""https://learn.microsoft.com/azure/storage/blobs/scalability-targets"""

UNKNOWN_LENGTH = 100 * TIB
"""What an upload of unknown length is planned for. For the whole 190 TiB its parts would be of 4000 MiB soon."""

OWNER = 32
WIDTH = OWNER + 1 + 15 + 1 + 10


def owner(upload_id: str) -> str:
    """32 characters that stand for the upload: its id where that is short enough, else a digest of it."""
    if len(upload_id) <= OWNER and upload_id.isascii():
        return upload_id.ljust(OWNER, "~")
    return "#" + hashlib.blake2b(upload_id.encode(), digest_size=16).hexdigest()[1:]


def block_name(upload_id: str, part: Part) -> str:
    """The name of the block that holds this part."""
    return f"{owner(upload_id)}-{part.offset:015d}-{part.size:010d}"


def is_of(name: str, upload_id: str) -> bool:
    """Whether that block is the upload's."""
    return len(name) == WIDTH and name.startswith(f"{owner(upload_id)}-")


def parts_among(names: Iterable[str], upload_id: str, plan: Plan, length: int | None) -> list[Part]:
    """The parts of the plan that have their blocks among these, in order."""
    found = set()
    for name in names:
        digits = name[OWNER + 1 : OWNER + 16]
        if is_of(name, upload_id) and digits.isdecimal():
            try:
                part = plan.part_at(int(digits), length)
            except ValueError:
                continue
            if block_name(upload_id, part) == name:
                found.add(part)
    return sorted(found, key=lambda part: part.number)
