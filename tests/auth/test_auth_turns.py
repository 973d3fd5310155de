"""Turns: nobody's work waits behind all of somebody else's, and what waits is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from resumable.auth.turns import FairTurns, TurnLimits
from resumable.protocol.errors import Unavailable


class Rig:
    def __init__(self, room):
        self.turns = FairTurns(room)
        self.done = []
        self.refused = []
        self.under_way = []

    def ask(self, address, name=b"", known=False):
        label = (address, name)

        async def work():
            ending = Deferred()
            self.under_way.append(ending)
            await ending
            self.done.append(label)

        answer = Deferred.fromCoroutine(self.turns.take(address, name, work(), known=known))
        answer.addErrback(lambda failure: self.refused.append((label, failure.trap(Unavailable, CancelledError))))
        return answer

    def end_all(self):
        while self.under_way:
            self.under_way.pop(0).callback(None)


def test_addresses_take_turns_and_of_each_its_names():
    rig = Rig(TurnLimits(1))
    for label in ["a1", "a1", "a1", "a2", "b1", "b1", "c1"]:
        rig.ask(label[0], label[1].encode())
    rig.end_all()
    assert rig.done == [("a", b"1"), ("a", b"1"), ("b", b"1"), ("c", b"1"), ("a", b"2"), ("b", b"1"), ("a", b"1")]


def test_no_more_than_so_many_at_once():
    rig = Rig(TurnLimits(3))
    for _ in range(8):
        rig.ask("a")
    assert len(rig.under_way) == 3
    rig.under_way.pop().callback(None)
    assert len(rig.under_way) == 3
    rig.end_all()
    assert len(rig.done) == 8
    rig.ask("a")
    assert len(rig.under_way) == 1, "it is free again"
    rig.end_all()


def test_an_address_gives_up_what_it_asked_last_for_the_name_it_asks_most_for():
    rig = Rig(TurnLimits(1, waiting=64, each=3))
    rig.ask("z")
    for name in [b"1", b"1", b"1", b"2"]:
        rig.ask("a", name)
    assert [label for label, _ in rig.refused] == [("a", b"1")]
    rig.ask("a", b"1")
    assert [label for label, _ in rig.refused] == [("a", b"1")] * 2, "the one that came last itself"
    rig.end_all()


def test_where_all_is_full_the_address_with_most_gives_up_first():
    rig = Rig(TurnLimits(1, waiting=4, each=4))
    rig.ask("z")
    for address in "aaab":
        rig.ask(address)
    rig.ask("c")
    rig.ask("d")
    assert [label[0] for label, _ in rig.refused] == ["a", "a"]
    rig.ask("e")
    assert [label[0] for label, _ in rig.refused] == ["a", "a", "e"], "all have one"
    rig.end_all()
    assert [address for address, _ in rig.done] == ["z", "a", "b", "c", "d"]


def test_who_is_known_waits_for_one_stranger_at_most():
    rig = Rig(TurnLimits(1, waiting=8))
    rig.ask("z")
    for n in range(8):
        rig.ask(f"stranger{n}")
    rig.ask("friend", known=True)
    rig.end_all()
    assert [address for address, _ in rig.done].index("friend") <= 2


def test_work_that_fails_gives_its_place_on():
    rig = Rig(TurnLimits(1))
    first = rig.ask("a")
    rig.ask("b")
    rig.under_way.pop().errback(Unavailable("no"))
    assert first.called and len(rig.under_way) == 1
    rig.end_all()
    assert rig.done == [("b", b"")]


def test_who_gives_up_waiting_takes_no_place():
    rig = Rig(TurnLimits(1))
    rig.ask("a")
    rig.ask("b").cancel()
    rig.ask("c")
    rig.end_all()
    assert [address for address, _ in rig.done] == ["a", "c"]
    rig.ask("d")
    assert len(rig.under_way) == 1
    rig.end_all()


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([b"1", b"2"]), st.booleans(), st.booleans())))
def test_everybody_is_served_or_refused_and_nothing_is_left(steps):
    rig = Rig(TurnLimits(2, waiting=5, each=2))
    for address, name, known, end in steps:
        rig.ask(address, name, known)
        if end and rig.under_way:
            rig.under_way.pop(0).callback(None)
        assert len(rig.under_way) <= 2
    rig.end_all()
    assert len(rig.done) + len(rig.refused) == len(steps)
