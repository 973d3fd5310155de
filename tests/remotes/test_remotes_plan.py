"""Part plans: what stores demand holds for every length, and requests have no say."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resumable.remotes.plan import (
    GIB,
    KIB,
    MIB,
    PART_SIZE,
    S3,
    S3_50TB,
    TIB,
    ObjectTooLarge,
    Part,
    PartLimits,
    Plan,
    Step,
    for_length,
    for_unknown_length,
    plan_for,
)

# 6 GiB parts: what it would take to hold 50 TiB in 10,000 of them
FIFTY_TIB = PartLimits(largest_object=50 * TIB, largest_part=6 * GIB)
GCS = PartLimits(multiple_of=256 * KIB, smallest_part=256 * KIB)
R2 = PartLimits(equal=True)
STORES = [S3, S3_50TB, FIFTY_TIB, GCS, R2]
TINY = PartLimits(smallest_part=3, largest_part=40, parts=20, largest_object=300, multiple_of=1)

lengths = st.one_of(st.integers(0, 5 * TIB), st.integers(0, 1 << 26), st.sampled_from([0, 5 * TIB, PART_SIZE]))
part_sizes = st.integers(1, 5 * GIB - 256 * KIB)
stores = st.sampled_from(STORES)
small_plans = st.lists(st.builds(Step, st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=4).map(
    lambda steps: Plan(tuple(steps))
)


@st.composite
def plans_and_lengths(draw):
    plan = draw(small_plans)
    return plan, draw(st.integers(0, plan.capacity))


@given(stores, lengths, part_sizes)
@example(S3_50TB, 50 * 10**12, PART_SIZE)
@example(FIFTY_TIB, 50 * TIB, PART_SIZE)
def test_a_known_length_has_at_most_as_many_parts_as_the_store_takes(limits, length, part_size):
    plan = for_length(length, part_size, limits)
    assert plan.capacity >= length
    assert plan.count(length) <= limits.parts
    first, last = plan.part_at(0, length), plan.part_at(length, length)
    assert last.end == length
    assert 0 < last.size <= first.size or length == 0
    assert limits.smallest_part <= plan.first_size <= limits.largest_part
    assert plan.first_size % limits.multiple_of == 0


@given(stores, part_sizes)
@example(S3, 1)
@example(S3_50TB, PART_SIZE)
@example(FIFTY_TIB, PART_SIZE)
def test_an_unknown_length_may_become_the_largest_object_of_the_store(limits, part_size):
    plan = for_unknown_length(part_size, limits)
    assert plan.capacity >= limits.largest_object
    assert plan.count(limits.largest_object) <= limits.parts
    assert sum(step.count for step in plan.steps) <= limits.parts
    for step in plan.steps:
        assert limits.smallest_part <= step.size <= limits.largest_part
        assert step.size % limits.multiple_of == 0


@given(part_sizes, lengths)
def test_any_length_fits_a_plan_made_before_it_was_known(part_size, length):
    plan = for_unknown_length(part_size)
    assert plan.part_at(length, length).end == length


@pytest.mark.parametrize("limits", [S3, S3_50TB, FIFTY_TIB, GCS])
def test_parts_of_an_upload_of_unknown_length_begin_small(limits):
    plan = for_unknown_length(PART_SIZE, limits)
    assert plan.first_size == PART_SIZE
    assert plan.part_at(256 * MIB).size == PART_SIZE


def test_parts_of_an_upload_of_unknown_length_grow_no_faster_than_needed():
    plan = for_unknown_length(PART_SIZE)
    assert plan.part_at(8 * GIB).size <= 2 * PART_SIZE
    assert [step.size for step in plan.steps] == sorted({step.size for step in plan.steps})


def test_equal_part_stores_get_equal_parts_of_a_ten_thousandth_of_their_largest_object():
    plan = for_unknown_length(PART_SIZE, R2)
    assert plan.steps == (Step(-(-5 * TIB // 10_000), 10_000),)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5))
def test_small_stores_are_covered_whatever_their_limits(part_size, parts, multiple_of):
    limits = PartLimits(1, 60, parts, 40 * parts, multiple_of)
    try:
        plan = for_unknown_length(part_size, limits)
    except ObjectTooLarge:
        assert part_size + -part_size % multiple_of > 60
    else:
        assert plan.capacity >= 40 * parts
        assert sum(step.count for step in plan.steps) <= parts


@given(plans_and_lengths())
def test_parts_cover_the_object_without_gap_or_overlap(plan_and_length):
    plan, length = plan_and_length
    parts = list(plan.parts(length))
    assert parts[0].offset == 0 and parts[-1].end == length
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert all(one.end == other.offset for one, other in pairwise(parts))
    assert len(parts) == plan.count(length)
    assert all(part.size == plan.part_at(part.offset).size for part in parts[:-1])
    assert all(plan.part_at(offset, length) == part for part in parts for offset in range(part.offset, part.end))


@given(plans_and_lengths(), st.data())
def test_boundaries_do_not_depend_on_how_the_client_slices_its_requests(plan_and_length, data):
    plan, length = plan_and_length
    cuts = sorted(data.draw(st.sets(st.integers(0, length)))) if length else []
    known_from = data.draw(st.integers(0, length))
    start, written = 0, []
    for committed in [*cuts, length]:
        known = length if committed >= known_from else None
        for part in plan.parts_within(committed, known, False, start):
            written.append(part)
            start = part.end
    written += plan.parts_within(length, length, True, start) if start < length or not written else []
    assert written == list(plan.parts(length))


@given(plans_and_lengths(), st.data())
def test_no_part_reaches_past_the_committed_offset(plan_and_length, data):
    plan, length = plan_and_length
    committed = data.draw(st.integers(0, length))
    known = data.draw(st.sampled_from([length, None]))
    for part in plan.parts_within(committed, known, committed == length == known):
        assert part.end <= committed


@given(plans_and_lengths(), st.data())
def test_going_on_from_any_offset_gives_the_parts_that_lie_behind_it(plan_and_length, data):
    plan, length = plan_and_length
    start = data.draw(st.integers(0, length))
    rest = [part for part in plan.parts(length) if part.end > start or not length]
    assert list(plan.parts_within(length, length, True, start)) == rest


def test_a_single_part_waits_for_the_upload_to_be_finished():
    plan = for_length(PART_SIZE)
    assert list(plan.parts_within(PART_SIZE, PART_SIZE, False)) == []
    assert list(plan.parts_within(PART_SIZE, PART_SIZE, True)) == [Part(1, 0, PART_SIZE)]
    assert list(plan.parts_within(PART_SIZE, PART_SIZE, True, PART_SIZE)) == []


def test_an_empty_upload_is_one_empty_part():
    assert list(for_length(0).parts_within(0, 0, True)) == [Part(1, 0, 0)]
    assert list(for_length(0).parts_within(0, 0, False)) == []


def test_nothing_is_written_of_an_unknown_length_before_a_second_part_is_certain():
    plan = for_unknown_length()
    assert list(plan.parts_within(PART_SIZE, None, False)) == []
    assert list(plan.parts_within(PART_SIZE + 1, None, False)) == [Part(1, 0, PART_SIZE)]


def test_a_length_up_to_one_part_needs_a_single_put():
    plan = for_length(100 * MIB)
    assert plan.is_single(PART_SIZE) and plan.is_single(0)
    assert not plan.is_single(PART_SIZE + 1) and not plan.is_single(None)


def test_the_last_part_is_written_before_the_upload_is_finished():
    plan = Plan((Step(4, 10),))
    assert list(plan.parts_within(6, 6, False)) == [Part(1, 0, 4), Part(2, 4, 2)]


def test_the_last_part_of_a_closing_plan_waits_for_the_upload_to_be_finished():
    plan = Plan((Step(4, 10),), closing=True)
    first, last = plan.parts(6)
    assert (plan.waits(first, 6), plan.waits(last, 6), plan.waits(first, None)) == (False, True, False)
    assert list(plan.parts_within(6, 6, False)) == [first]
    assert list(plan.parts_within(6, 6, True)) == [first, last]
    assert list(plan.parts_within(8, None, False)) == [Part(1, 0, 4), Part(2, 4, 4)]
    assert list(plan.parts_within(8, 8, False)) == [Part(1, 0, 4)]


def test_a_finished_upload_has_a_length():
    with pytest.raises(ValueError, match="length"):
        list(for_length(1).parts_within(1, None, True))


@given(small_plans)
def test_a_plan_survives_json(plan):
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize("value", [None, [], {}, 7, "x", [[1]], [[0, 1]], [[1, -1]], [["a", "b"]], [[1, 2, 3]]])
def test_what_is_no_plan_is_refused(value):
    with pytest.raises(ValueError):
        Plan.from_json(value)


def test_parts_grow_with_a_length_that_would_need_too_many():
    assert for_length(5 * TIB).first_size == -(-5 * TIB // 10_000)
    assert for_length(80 * GIB, 8 * MIB).first_size > 8 * MIB


def test_parts_are_multiples_of_what_the_store_demands():
    assert for_length(5 * TIB, 1_000_000, GCS).first_size % (256 * KIB) == 0
    assert for_length(10, 1_000_000, GCS).first_size == 1024 * KIB


@pytest.mark.parametrize(
    ("length", "part_size", "limits"), [(5 * TIB + 1, PART_SIZE, S3), (1, 6 * GIB, S3), (301, 3, TINY)]
)
def test_what_the_store_cannot_hold_is_refused(length, part_size, limits):
    with pytest.raises(ObjectTooLarge):
        for_length(length, part_size, limits)


def test_a_largest_object_out_of_reach_is_refused():
    with pytest.raises(ObjectTooLarge):
        for_unknown_length(3, PartLimits(1, 10, 5, 51))


def test_the_whole_capacity_can_be_used():
    plan = Plan((Step(4, 2), Step(8, 1)))
    assert plan.capacity == 16
    assert plan.part_at(16) == plan.part_at(16, 16) == Part(3, 8, 8)


@pytest.mark.parametrize(("offset", "length"), [(-1, None), (5, 4)])
def test_an_offset_outside_of_the_object_has_no_part(offset, length):
    with pytest.raises(ValueError):
        for_length(4).part_at(offset, length)


def test_an_offset_past_the_plan_has_no_part():
    with pytest.raises(ObjectTooLarge):
        Plan((Step(4, 2),)).part_at(9)


def test_a_plan_is_made_for_what_is_known():
    assert plan_for(7) == for_length(7)
    assert plan_for(None) == for_unknown_length()


@given(plans_and_lengths())
def test_a_part_is_found_by_its_number(plan_and_length):
    plan, length = plan_and_length
    assert [plan.part_numbered(part.number, length) for part in plan.parts(length)] == list(plan.parts(length))


@pytest.mark.parametrize("number", [0, -1, 3])
def test_there_is_no_part_of_any_other_number(number):
    with pytest.raises(ObjectTooLarge):
        Plan((Step(4, 2),)).part_numbered(number)
