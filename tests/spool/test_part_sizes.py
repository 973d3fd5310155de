"""How large the parts of an upload in an object store are: whatever dies, there are numbers left to its end."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from resumable.remotes.plan import GIB, MIB, S3, TIB, ObjectTooLarge
from resumable.spool.objects.part_sizes import may_be_part, size_at

EQUAL = evolve(S3, equal=True)


def parts(length: int, lost: int = 0) -> list[int]:
    """The sizes of an upload's parts; ``lost``: numbers that die with their workers, in the first half."""
    sizes: list[int] = []
    start, number = 0, 1
    while start < length:
        size = min(size_at(S3, 8 * MIB, length, start, number, None), length - start)
        sizes.append(size)
        start += size
        number += 1
        if lost and start >= length // 2:
            number, lost = number + lost, 0
    assert number - 1 <= S3.parts
    return sizes


@pytest.mark.parametrize("length", [1, 8 * MIB, 8 * MIB + 1, GIB, 100 * GIB, TIB, 5 * TIB])
@pytest.mark.parametrize("lost", [0, 16, 2000])
def test_every_length_gets_there_with_numbers_that_are_left(length: int, lost: int) -> None:
    sizes = parts(length, lost)
    assert sum(sizes) == length
    assert all(S3.smallest_part <= size <= S3.largest_part for size in sizes[:-1])


def test_small_uploads_have_parts_of_the_size_that_is_wanted() -> None:
    assert parts(20 * MIB) == [8 * MIB, 8 * MIB, 4 * MIB]


@given(st.integers(1, 9_000))
def test_parts_of_an_unknown_length_only_grow(number: int) -> None:
    now, later = (size_at(S3, 8 * MIB, None, 0, each, None) for each in (number, number + 1))
    assert 8 * MIB <= now <= later <= S3.largest_part


def test_equal_parts_have_the_size_of_the_first() -> None:
    assert size_at(EQUAL, 8 * MIB, 5 * GIB, 0, 1, None) == 8 * MIB
    assert size_at(EQUAL, 64 * MIB, 5 * GIB, 8 * MIB, 2, 8 * MIB) == 8 * MIB
    assert not may_be_part(EQUAL, 5 * MIB, 1, GIB)


def test_a_remainder_is_a_part_as_long_as_there_are_many_numbers() -> None:
    assert may_be_part(S3, 5 * MIB, 1, GIB) and not may_be_part(S3, 5 * MIB - 1, 1, GIB)
    assert not may_be_part(S3, 5 * MIB, 6_000, GIB) and not may_be_part(S3, 5 * MIB, 3_000, None)


def test_there_is_no_part_behind_the_last_number() -> None:
    with pytest.raises(ObjectTooLarge):
        size_at(S3, 8 * MIB, GIB, 0, 10_001, None)
