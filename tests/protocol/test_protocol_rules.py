"""Lengths and offsets: what is admitted, and how far it may commit before its end is seen."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from resumable.protocol import rules
from resumable.protocol.checksum import Checksum
from resumable.protocol.errors import BadRequest, OffsetMismatch, TooLarge, TusError
from resumable.protocol.tus import Append, Creation

SUM = Checksum("crc32", b"abcd")


def creation(length, checksum=None, trailer=False, body=True):
    return Creation(length, length is None, None, None, None, checksum, trailer, body)


def append(offset, length=None, checksum=None, trailer=False):
    return Append(offset, length, checksum, trailer)


# -- finished


@pytest.mark.parametrize(
    ("offset", "length", "done"), [(0, 0, True), (5, 5, True), (4, 5, False), (0, None, False), (5, None, False)]
)
def test_T23_an_upload_is_finished_when_all_of_a_known_length_is_there(offset, length, done):
    assert rules.finished(offset, length) is done


# -- creation


def test_T27_a_length_over_the_maximum_is_413():
    with pytest.raises(TooLarge, match="11 is over the maximum size, 10"):
        rules.admit_creation(creation(11), 0, 10)
    assert rules.admit_creation(creation(10), 0, 10).ceiling == 10


def test_T33_a_body_longer_than_the_length_or_the_maximum_is_413_without_an_offset():
    for made, body, maximum in ((creation(10), 11, None), (creation(None), 11, 10)):
        with pytest.raises(TooLarge, match="Content-Length 11") as caught:
            rules.admit_creation(made, body, maximum)
        assert caught.value.headers == {}


def test_T23_a_creation_of_no_bytes_may_finish_at_once():
    assert rules.admit_creation(creation(0), 0, None).may_finish


def test_T33_a_whole_body_may_finish_and_a_part_may_not():
    assert rules.admit_creation(creation(10), 10, None).may_finish
    assert not rules.admit_creation(creation(10), 9, None).may_finish
    assert rules.admit_creation(creation(10), None, None).may_finish
    assert not rules.admit_creation(creation(None), 10, None).may_finish


# -- append


def test_T15_another_offset_is_409_with_the_current_one_whatever_else_is_wrong():
    with pytest.raises(OffsetMismatch) as caught:
        rules.admit_append(70, 100, append(69, 7), 1000, 10)
    assert caught.value.headers == {"Upload-Offset": "70"}


def test_T31_the_same_length_again_is_fine_and_records_nothing():
    plan = rules.admit_append(70, 100, append(70, 100), 30, None)
    assert (plan.length, plan.new_length, plan.early_length) == (100, None, None)


@pytest.mark.parametrize("length", [99, 101, 0])
def test_T31_another_length_is_400(length):
    with pytest.raises(BadRequest, match="Upload-Length is 100"):
        rules.admit_append(70, 100, append(70, length), 0, None)


@pytest.mark.parametrize(("body", "length"), [(0, 69), (30, 99), (None, 69)])
def test_T31_a_length_below_what_is_here_or_declared_is_413(body, length):
    with pytest.raises(TooLarge) as caught:
        rules.admit_append(70, None, append(70, length), body, None)
    assert caught.value.headers == {"Upload-Offset": "70"}


def test_T27_T31_a_length_over_the_maximum_is_413():
    with pytest.raises(TooLarge, match="maximum"):
        rules.admit_append(70, None, append(70, 101), 0, 100)


def test_T31_a_length_is_recorded_at_once_when_the_body_can_no_longer_be_refused():
    plan = rules.admit_append(70, None, append(70, 100), 30, 100)
    assert (plan.length, plan.new_length, plan.early_length, plan.may_finish) == (100, 100, 100, True)


def test_T31_a_length_of_what_is_here_finishes_the_upload():
    plan = rules.admit_append(70, None, append(70, 70), 0, None)
    assert (plan.length, plan.new_length, plan.may_finish) == (70, 70, True)


@pytest.mark.parametrize(
    ("body", "made"), [(None, append(70, 100)), (30, append(70, 100, SUM)), (None, append(70, 100, None, True))]
)
def test_T31_a_length_is_recorded_at_the_end_when_the_body_may_still_be_refused(body, made):
    plan = rules.admit_append(70, None, made, body, None)
    assert (plan.length, plan.new_length, plan.early_length) == (100, 100, None)


@pytest.mark.parametrize(
    ("length", "maximum", "named"),
    [(100, None, "upload's length, 100"), (100, 50, "upload's length, 100"), (None, 100, "maximum size, 100")],
)
def test_a_declared_body_past_the_length_or_the_maximum_is_413_before_it_is_read(length, maximum, named):
    with pytest.raises(TooLarge, match=f"Content-Length 31 .* {named}") as caught:
        rules.admit_append(70, length, append(70), 31, maximum)
    assert caught.value.headers == {"Upload-Offset": "70"}
    assert rules.admit_append(70, length, append(70), 30, maximum).ceiling == 100


def test_nothing_passes_what_a_file_can_hold():
    with pytest.raises(TooLarge):
        rules.admit_append(1, None, append(1), 2**63 - 1, None)
    with pytest.raises(TooLarge):
        rules.admit_creation(creation(None), 2**64, None)


def test_an_empty_append_at_the_end_of_a_finished_upload_is_admitted():
    for body in (0, None):
        plan = rules.admit_append(100, 100, append(100), body, 100)
        assert (plan.start, plan.ceiling, plan.commit_ceiling, plan.may_finish) == (100, 100, 100, True)
        assert not plan.overruns(100) and plan.overruns(101)


def test_an_upload_over_a_maximum_that_was_lowered_keeps_its_bytes_and_takes_no_more():
    assert rules.admit_append(70, None, append(70), 0, 50).ceiling == 70
    with pytest.raises(TooLarge):
        rules.admit_append(70, None, append(70), 1, 50)


# -- how far it may commit as it goes


def test_a_declared_body_may_commit_all_as_it_goes():
    assert rules.admit_append(70, 100, append(70), 30, None).commit_ceiling == 100
    assert rules.admit_append(70, 100, append(70), 10, None).commit_ceiling == 80
    assert rules.admit_append(70, None, append(70), 10, None).commit_ceiling == 80


def test_a_chunked_body_commits_no_last_byte_before_its_end():
    plan = rules.admit_append(70, 100, append(70), None, None)
    assert (plan.ceiling, plan.commit_ceiling) == (100, 99)
    assert [plan.committable(end) for end in (70, 80, 99, 100, 120)] == [70, 80, 99, 99, 99]
    assert not plan.overruns(100) and plan.overruns(101)


def test_a_chunked_body_of_unknown_length_commits_up_to_the_maximum():
    plan = rules.admit_append(70, None, append(70), None, 100)
    assert (plan.ceiling, plan.commit_ceiling, plan.may_finish) == (100, 100, False)
    free = rules.admit_append(70, None, append(70), None, None)
    assert (free.ceiling, free.commit_ceiling) == (None, None)
    assert free.committable(2**40) == 2**40 and not free.overruns(2**40)


@pytest.mark.parametrize(
    ("body", "made"), [(30, append(70, None, SUM)), (None, append(70, None, SUM)), (None, append(70, None, None, True))]
)
def test_T42_with_a_checksum_nothing_is_committed_before_the_end(body, made):
    plan = rules.admit_append(70, 100, made, body, None)
    assert plan.commit_ceiling == 70 and plan.committable(100) == 70


def test_T42_the_same_for_a_creation():
    assert rules.admit_creation(creation(10, SUM), 10, None).commit_ceiling == 0
    assert rules.admit_creation(creation(10, None, True), None, None).commit_ceiling == 0
    assert rules.admit_creation(creation(10), None, None).commit_ceiling == 9


# -- finals


def test_T52_T60_the_length_of_a_final_is_the_sum_once_all_are_known():
    assert rules.final_length([5, 6], None) == 11
    assert rules.final_length([0], None) == 0
    assert rules.final_length([5, None], None) is None


@pytest.mark.parametrize("lengths", [[5, 6], [11, None], [None, 11]])
def test_T27_T52_a_sum_over_the_maximum_is_413(lengths):
    with pytest.raises(TooLarge):
        rules.final_length(lengths, 10)
    with pytest.raises(TooLarge):
        rules.final_length([2**62, 2**62], None)


# -- all of them

SMALL = st.integers(0, 12)
MAYBE = st.none() | SMALL


@given(SMALL, MAYBE, SMALL, MAYBE, MAYBE, MAYBE, st.booleans())
def test_every_plan_is_in_order_and_what_it_commits_early_never_finishes_a_body_that_may_be_refused(
    offset, length, sent, sent_length, body, maximum, trailer
):
    assume(length is None or offset <= length)
    made = append(offset if sent < 10 else sent, sent_length, None, trailer)
    try:
        plan = rules.admit_append(offset, length, made, body, maximum)
    except TusError as error:
        assert error.status in (400, 409, 413)
        return
    assert plan.start == offset
    top = 10**9
    ceiling = top if plan.ceiling is None else plan.ceiling
    early = top if plan.commit_ceiling is None else plan.commit_ceiling
    assert offset <= early <= ceiling
    if plan.length is not None:
        assert ceiling == plan.length and offset <= plan.length
        if body is None and offset < plan.length:
            assert not rules.finished(plan.committable(top), plan.length)
    if body is not None:
        assert not plan.overruns(offset + body)
        assert plan.may_finish == rules.finished(offset + body, plan.length)
    if trailer:
        assert plan.committable(top) == offset
    assert plan.early_length in (None, plan.new_length)
