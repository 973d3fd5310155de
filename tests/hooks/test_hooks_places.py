"""A bounded number of places is shared, whoever wants how many."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from resumable.hooks.turns import Places


def take(places, whose, count=1):
    return [places.take(whose) for _ in range(count)]


def had(taken):
    return sum(each.called for each in taken)


def test_no_more_places_are_taken_than_there_are():
    places = Places(4)
    first, second = take(places, "a", 9), take(places, "b", 9)
    assert (had(first), had(second)) == (3, 1)
    for _ in range(3):
        places.give_back("a")
    assert had(first) + had(second) - 3 == 4


@pytest.mark.parametrize(("count", "most"), [(1, 1), (2, 2), (4, 3), (32, 24)])
def test_one_client_gets_three_quarters_of_several(count, most):
    assert had(take(Places(count), "a", 100)) == most


def test_a_free_place_goes_to_who_has_the_fewest():
    places = Places(2)
    many = take(places, "a", 100)
    one = take(places, "b")
    places.give_back("a")
    assert (had(many), had(one)) == (2, 1)
    places.give_back("a")
    assert had(many) == 3


def test_who_is_given_up_while_waiting_takes_no_place():
    places = Places(1)
    first, gone, last = take(places, "a", 3)
    gone.addErrback(lambda failure: failure.trap(CancelledError))
    gone.cancel()
    assert not last.called
    places.give_back("a")
    assert first.called and last.called
    places.give_back("a")
    assert had(take(places, "b")) == 1
