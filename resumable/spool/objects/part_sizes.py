"""How large an upload's next part is.

Pure. Invariant: an upload of any length that the store can hold gets there with half of the numbers that are left, so
that numbers that died with their workers are not missed; where parts must be equal, all have the size of the first.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve

from resumable.remotes.plan import MIB, ObjectTooLarge, PartLimits, plan_for

DOUBLES: Final = 500
"""Parts of an upload of unknown length after which its parts are twice as large."""


def size_at(limits: PartLimits, wanted: int, length: int | None, start: int, number: int, first: int | None) -> int:
    """Bytes of a part that begins at ``start`` and has this number, unless the upload ends before.

    ``wanted``: the size that the operator wants; ``first``: of the first part, None: this is it. Raises
    ObjectTooLarge.
    """
    if number > limits.parts:
        raise ObjectTooLarge("there are no numbers of parts left")
    if limits.equal:
        if first is not None:
            return first
        half = limits if length is None else evolve(limits, parts=limits.parts // 2)
        return plan_for(length, wanted, half).first_size
    left = max(1, (limits.parts - number + 1) // 2)
    needed = wanted << min(number // DOUBLES, 20) if length is None else -(-max(0, length - start) // left)
    size = max(wanted, needed)
    if size > wanted:
        size = -(-size // MIB) * MIB
    if size > limits.largest_part:
        if length is not None and length - start > limits.largest_part * max(1, limits.parts - number + 1):
            raise ObjectTooLarge(f"there are too few numbers of parts left for {length} bytes")
        size = limits.largest_part
    return max(size, limits.smallest_part)


def may_be_part(limits: PartLimits, size: int, number: int, length: int | None) -> bool:
    """Whether the remainder of an append, ``size`` bytes, may be a part though more will follow."""
    if limits.equal or size < max(limits.smallest_part, MIB) or size % limits.multiple_of:
        return False
    return number <= limits.parts // (4 if length is None else 2)
