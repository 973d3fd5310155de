"""The sizes and boundaries of an object's parts, within the limits of its store.

Pure: no I/O, no clock.

Invariant: the boundaries depend on the offset and the plan alone, never on how bytes arrived. A plan has at most as
many parts as the store takes, every part but the last has exactly the size that the plan says, and all sizes are
multiples of the store's unit. A plan is fixed when a replica is initiated and read back from its JSON later.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html (parts, sizes).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import field, frozen

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

PART_SIZE = 8 * MIB
"""The default. Larger: fewer requests, more to send again after a failure, and more lag behind the client."""


class ObjectTooLarge(ValueError):
    """The store cannot hold an object of that size."""


@frozen
class PartLimits:
    """A store's limits for parts. Sizes in bytes.

    ``multiple_of``: all parts but the last are multiples of it (GCS: 256 KiB). ``equal``: all parts but the last have
    the same size (R2).
    """

    smallest_part: int = 5 * MIB
    largest_part: int = 5 * GIB
    parts: int = 10_000
    largest_object: int = 5 * TIB
    multiple_of: int = 1
    equal: bool = False


S3 = PartLimits()
S3_50TB = PartLimits(largest_object=50 * 10**12)
"""AWS itself since December 2025; other stores may not."""


@frozen
class Part:
    """``number`` counts from 1. The bytes from ``offset`` up to ``end``."""

    number: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The offset behind its last byte."""
        return self.offset + self.size


@frozen
class Step:
    """``count`` parts of ``size`` bytes, one after the other."""

    size: int
    count: int


def _steps(value: tuple[Step, ...]) -> tuple[Step, ...]:
    if not value or any(step.size < 1 or step.count < 1 for step in value):
        raise ValueError("a plan has parts, and no empty ones")
    return tuple(value)


@frozen
class Plan:
    """Steps of equal parts, one after the other. Made by `for_length` and `for_unknown_length`.

    ``closing``: writing the last part makes the object visible, so that it waits for the end of the upload, as a single
    one does. That is the backend's to know, and not in the JSON.
    """

    steps: tuple[Step, ...] = field(converter=_steps)
    closing: bool = False

    @property
    def capacity(self) -> int:
        """The length that the plan can hold."""
        return sum(step.size * step.count for step in self.steps)

    @property
    def first_size(self) -> int:
        """The size of the first part; an object that isn't longer goes in a single PUT."""
        return self.steps[0].size

    def is_single(self, length: int | None) -> bool:
        """Whether the whole is one part, so that it needs no multipart. An unknown length never is."""
        return length is not None and length <= self.first_size

    def waits(self, part: Part, length: int | None) -> bool:
        """Whether the part is written only once the upload is finished, since that may make the object visible."""
        return length is not None and part.end == length and (self.closing or self.is_single(length))

    def part_at(self, offset: int, length: int | None = None) -> Part:
        """The part that ``offset`` lies in; cut to ``length``, where that is given.

        The offset that is equal to the length belongs to the last part. Raises ValueError for an offset outside,
        TooLarge past the plan's capacity.
        """
        if offset < 0 or (length is not None and offset > length):
            raise ValueError(f"no part at offset {offset}")
        if max(offset, length or 0) > self.capacity:
            raise ObjectTooLarge(f"the plan ends at {self.capacity} bytes")
        looked_for = offset - 1 if offset and offset in (length, self.capacity) else offset
        start, number = 0, 1
        for step in self.steps:
            index = (looked_for - start) // step.size
            if index < step.count:
                start += index * step.size
                size = step.size if length is None else min(step.size, length - start)
                return Part(number + index, start, size)
            start += step.count * step.size
            number += step.count
        raise ObjectTooLarge(f"the plan ends at {self.capacity} bytes")  # pragma: no cover (the capacity was checked)

    def part_numbered(self, number: int, length: int | None = None) -> Part:
        """The part of that number, cut to ``length``. Raises ValueError, or TooLarge past the plan's capacity."""
        start, before = 0, number - 1
        for step in self.steps:
            if 0 <= before < step.count:
                return self.part_at(start + before * step.size, length)
            start += step.count * step.size
            before -= step.count
        raise ObjectTooLarge(f"the plan has no part {number}")

    def parts(self, length: int) -> Iterator[Part]:
        """All parts of an object of that length, in order; one empty part for an empty object."""
        part = self.part_at(0, length)
        yield part
        while part.end < length:
            part = self.part_at(part.end, length)
            yield part

    def count(self, length: int) -> int:
        """How many parts an object of that length has."""
        return self.part_at(length, length).number

    def parts_within(self, committed: int, length: int | None, finished: bool, start: int = 0) -> Iterator[Part]:
        """The parts that may be written when ``committed`` bytes are there, from the one at ``start`` on, in order.

        A part that `waits` does so until the upload is ``finished``. Of an upload whose length isn't known, nothing is
        given before it is sure that there will be a second part.
        """
        if length is None:
            if finished:
                raise ValueError("a finished upload has a length")
            if committed <= self.first_size:
                return
        elif self.is_single(length):
            if finished and committed == length and (start < length or not start):
                yield self.part_at(0, length)
            return
        while start < committed:
            part = self.part_at(start, length)
            if part.end > committed or (self.waits(part, length) and not finished):
                return
            yield part
            start = part.end

    def to_json(self) -> list[list[int]]:
        """The form that `from_json` takes: ``[[size, count], ...]``."""
        return [[step.size, step.count] for step in self.steps]

    @classmethod
    def from_json(cls, value: Any) -> Plan:
        """The plan that was written; ValueError if it is none."""
        try:
            return cls(tuple(Step(int(size), int(count)) for size, count in value))
        except (TypeError, ValueError) as error:
            raise ValueError(f"not a part plan: {value!r}") from error


def for_length(length: int, part_size: int = PART_SIZE, limits: PartLimits = S3) -> Plan:
    """Equal parts of ``part_size``, or as much larger as the length needs. Raises TooLarge."""
    if length > limits.largest_object:
        raise ObjectTooLarge(f"the store takes objects of at most {limits.largest_object} bytes")
    size = _aligned(max(part_size, limits.smallest_part, -(-length // limits.parts)), limits)
    return Plan((Step(size, limits.parts),))


def for_unknown_length(part_size: int = PART_SIZE, limits: PartLimits = S3) -> Plan:
    """A plan that reaches the store's largest object: parts that double after every so many.

    The slowest growth that gets there, so that an upload that turns out small has small parts. Where all must be
    equal, each is as large as the largest object needs.
    """
    if limits.equal:
        return for_length(limits.largest_object, part_size, limits)
    first = _aligned(max(part_size, limits.smallest_part), limits)
    most = limits.largest_part - limits.largest_part % limits.multiple_of
    while True:
        every = _slowest(first, most, limits)
        if every:
            return Plan(_doubling(first, most, every, limits.parts))
        if first == most:
            raise ObjectTooLarge(f"{limits.parts} parts of {most} bytes don't hold {limits.largest_object} bytes")
        first = min(2 * first, most)


def plan_for(length: int | None, part_size: int = PART_SIZE, limits: PartLimits = S3) -> Plan:
    """The plan for an upload of that length; None: it isn't known yet."""
    return for_unknown_length(part_size, limits) if length is None else for_length(length, part_size, limits)


def _aligned(size: int, limits: PartLimits) -> int:
    aligned = size + -size % limits.multiple_of
    if aligned > limits.largest_part:
        raise ObjectTooLarge(f"a part of {aligned} bytes is more than the store's {limits.largest_part}")
    return aligned


def _doubling(first: int, most: int, every: int, parts: int) -> tuple[Step, ...]:
    """Steps of ``every`` parts, each step's twice as large as those before, up to ``most``; the last takes the rest."""
    steps = []
    while parts > every and first < most:
        steps.append(Step(first, every))
        parts -= every
        first = min(2 * first, most)
    return (*steps, Step(first, parts))


def _slowest(first: int, most: int, limits: PartLimits) -> int:
    """The largest number of parts between doublings that still reaches the largest object; 0 when none does."""
    low, high = 0, limits.parts
    while low < high:
        middle = (low + high + 1) // 2
        if Plan(_doubling(first, most, middle, limits.parts)).capacity >= limits.largest_object:
            low = middle
        else:
            high = middle - 1
    return low
