"""The parts that an object is made of when its bytes are those of other objects.

Pure: no I/O, no clock.

Invariant: a plan has each byte once and in order, in parts that the store takes; see `PartLimits`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from attrs import frozen

from resumable.remotes.plan import MIB, ObjectTooLarge, PartLimits

COPIED: Final = 256 * MIB
"""Bytes of a part that is copied inside the store. Larger ones need fewer requests, smaller ones end sooner: a stop, or
another final, waits for them."""


@frozen
class SourceStretch:
    """``size`` bytes, from ``start`` on, of the source with this number."""

    source: int
    start: int
    size: int


@frozen
class CopyStep:
    """One part: its bytes, in order. ``inside``: it is one stretch that the store can copy by itself."""

    stretches: Sequence[SourceStretch]
    inside: bool

    @property
    def size(self) -> int:
        """Of the part."""
        return sum(each.size for each in self.stretches)


def plan_copies(
    sizes: Sequence[int],
    limits: PartLimits,
    part_size: int,
    *,
    inside: bool = True,
    ranges: bool = True,
    start: int = 0,
    numbers: int | None = None,
) -> Sequence[CopyStep]:
    """The parts of an object that has the bytes of these sources, in order, from its offset ``start`` on.

    As many of them as can be are stretches of one source, which the store copies by itself, unless ``inside`` is False.
    ``ranges``: see `IObjectStore.copies_ranges`; without it these stretches are whole sources of any size.
    ``part_size``: of the parts of a store that demands equal ones, and of all that go through here. ``numbers``: how
    many parts there may be; None: as many as the store takes. Pure. Raises ObjectTooLarge.
    """
    total, numbers = sum(sizes), numbers or limits.parts
    if limits.equal:
        part_size = _rounded(max(part_size, limits.smallest_part, -(-total // limits.parts)), limits.multiple_of)
        ends = _equal_ends(start, total, part_size)
    elif inside and not ranges and _are_parts(sizes, limits, numbers):
        ends = [end for end in accumulate(filter(None, sizes)) if end > start]
    elif not (inside and ranges):
        needed = -(-(total - start) // numbers)
        ends = _equal_ends(start, total, _rounded(max(part_size, limits.smallest_part, needed), limits.multiple_of))
    else:
        least = _rounded(limits.smallest_part, limits.multiple_of)
        ends = _greedy_ends(sizes, least, limits)
        if len(ends) > numbers:
            least = _rounded(max(least, -(-total // max(1, numbers - 1))), limits.multiple_of)
            ends = _greedy_ends(sizes, least, limits)
    if len(ends) > numbers or total > limits.largest_object:
        raise ObjectTooLarge(f"the store can't hold an object of {total} bytes made of {len(sizes)} others")
    steps = []
    for stretches in _stretches(sizes, start, ends):
        # S3 copies a range only of an object that is large enough for several parts
        size = sizes[stretches[0].source]
        alone = inside and len(stretches) == 1 and size >= limits.smallest_part
        alone = alone and (ranges or stretches[0].size == size)
        steps.append(CopyStep(stretches, alone))
    return steps


def _are_parts(sizes: Sequence[int], limits: PartLimits, numbers: int) -> bool:
    """Whether the store takes each source as a part."""
    *others, last = [size for size in sizes if size] or [0]
    taken = all(size >= limits.smallest_part and size % limits.multiple_of == 0 for size in others)
    return taken and max(last, *others, 0) <= limits.largest_part and len(others) < numbers


def _rounded(size: int, multiple: int) -> int:
    """Up to the next multiple."""
    return -(-size // multiple) * multiple


def _equal_ends(start: int, total: int, part_size: int) -> list[int]:
    return [*range(start + part_size, total, part_size), total] if start < total else []


def _greedy_ends(sizes: Sequence[int], least: int, limits: PartLimits) -> list[int]:
    """Each part ends within the source in which it began, if it can; else as soon as it has ``least`` bytes."""
    total, ends, begun, offset = sum(sizes), [], 0, 0
    most = min(max(COPIED, 2 * least, -(-total // max(1, limits.parts // 4))), limits.largest_part)
    most = max(least, most // limits.multiple_of * limits.multiple_of)
    for size in sizes:
        source_end = offset + size
        if begun < offset:
            if begun + least > source_end:
                offset = source_end
                continue
            begun += least
            ends.append(begun)
        rest = source_end - begun
        units = rest // limits.multiple_of
        if units * limits.multiple_of >= least:
            count = -(-units * limits.multiple_of // most)
            ends += [begun + units * (each + 1) // count * limits.multiple_of for each in range(count)]
            begun = ends[-1]
        offset = source_end
    if begun < total:
        ends.append(total)
    return ends


def _stretches(sizes: Sequence[int], start: int, ends: Sequence[int]) -> Iterator[Sequence[SourceStretch]]:
    """Those of each part; the first begins at ``start``."""
    source = begin = 0  # a source, and where it begins
    for end in ends:
        found = []
        while start < end:
            if start < begin + sizes[source]:
                size = min(end, begin + sizes[source]) - start
                found.append(SourceStretch(source, start - begin, size))
                start += size
            else:
                begin += sizes[source]
                source += 1
        yield tuple(found)
