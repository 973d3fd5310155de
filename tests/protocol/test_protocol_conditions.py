"""Conditions of a download: what the client has, and what it expects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.protocol.downloads import Validators, allows_range, not_modified
from resumable.protocol.errors import PreconditionFailed

NOW = Validators('"abc"', 1_700_000_000)
AT = "Tue, 14 Nov 2023 22:13:20 GMT"
BEFORE = "Tue, 14 Nov 2023 22:13:19 GMT"
AFTER = "Tue, 14 Nov 2023 22:13:21 GMT"


class Lines:
    def __init__(self, **lines):
        self._lines = {name.replace("_", "-"): [v] if isinstance(v, str) else v for name, v in lines.items()}

    def values(self, name):
        return self._lines.get(name, ())


def known(**lines):
    return not_modified(Lines(**lines), NOW)


def test_without_a_condition_it_is_sent():
    assert known() is False


@pytest.mark.parametrize(
    "value", ['"abc"', 'W/"abc"', "*", ' "x", "abc"', '"x","y" , W/"abc",', ['"x"', '"abc"'], '"a,b", "abc"']
)
def test_who_has_it_already_is_told_so(value):
    assert known(if_none_match=value) is True


@pytest.mark.parametrize(
    "value",
    [
        "",
        '"x"',
        "abc",
        '"ab',
        '"abc" x',
        '"abc" "abc"',
        'w/"abc"',
        '"x,abc"',
        '"ABC"',
        '*, "abc"',
        "**",
        "\u00b2",
        '"a b", ',
    ],
)
def test_who_has_something_else_gets_it(value):
    assert known(if_none_match=value) is False


def test_dates_count_only_without_tags():
    assert known(if_modified_since=AT) and known(if_modified_since=AFTER)
    assert not known(if_modified_since=BEFORE)
    assert not known(if_none_match='"x"', if_modified_since=AFTER)
    assert known(if_match='"abc"', if_unmodified_since=BEFORE) is False


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "0", "99999999999999999999", "Tue, 14 Nov 99999 22:13:21 GMT", "Tue, 99 Nov 2023 22:13:21 GMT",
     "Tue, 14 Nov 2023 22:13:21 +99999999", [AFTER, AFTER], "\x00", "9" * 10_000],
)  # fmt: skip
def test_what_is_no_date_is_ignored(value):
    assert known(if_modified_since=value) is False
    assert known(if_unmodified_since=value) is False
    assert not allows_range(Lines(if_range=value), NOW)


@pytest.mark.parametrize("value", ['"abc"', "*", '"x", "abc"', ['"x"', '"abc"']])
def test_what_is_still_so_is_sent(value):
    assert known(if_match=value) is False


@pytest.mark.parametrize("value", ["", '"x"', 'W/"abc"', "abc", '"abc', '"abc" "x"'])
def test_what_is_not_so_any_more_is_412(value):
    with pytest.raises(PreconditionFailed):
        known(if_match=value)


def test_what_was_modified_since_is_412():
    assert known(if_unmodified_since=AT) is False
    with pytest.raises(PreconditionFailed):
        known(if_unmodified_since=BEFORE)


def test_if_match_comes_first():
    with pytest.raises(PreconditionFailed):
        known(if_match='"x"', if_none_match='"abc"')
    assert known(if_match="*", if_none_match='"abc"') is True


@pytest.mark.parametrize("value", ['"abc"', AT])
def test_a_range_of_what_is_there_is_served(value):
    assert allows_range(Lines(if_range=value), NOW)
    assert allows_range(Lines(), NOW)


@pytest.mark.parametrize("value", ["", '"x"', 'W/"abc"', "*", BEFORE, AFTER, ['"abc"', '"abc"'], '"abc", "x"', "abc"])
def test_a_range_of_something_else_is_not(value):
    assert not allows_range(Lines(if_range=value), NOW)


@given(
    st.sampled_from(["if_match", "if_none_match", "if_range", "if_modified_since", "if_unmodified_since"]), st.text()
)
def test_no_text_does_harm(name, text):
    lines = Lines(**{name: text})
    try:
        assert not_modified(lines, NOW) in (True, False)
    except PreconditionFailed:
        assert name in ("if_match", "if_unmodified_since")
    assert allows_range(lines, NOW) in (True, False)
