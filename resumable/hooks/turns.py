"""Whose letter goes next, and which of theirs.

One reason to change: the order in which letters go. Pure.

Invariants: a letter that fails makes its own upload wait, and no other; of those that aren't answered, however many,
neither another owner's wait nor the newest of the same owner's. Letters go by turns of their owners, nobody's take all
places (`resumable.hooks.fair`), and an owner's oldest and newest have as many. Those that have failed, and all of
owners that hang, get at most half of the places together, and neither they nor others can take all the turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from attrs import frozen

from resumable.hooks.fair import Lines, Shares
from resumable.model.outbox import Letter

OUTAGE_TURNS = 4
"""In an outage three new letters go before one that has failed, and so on."""


def _order(letter: Letter) -> tuple[int, int]:
    """Who failed least often comes first, and of these the oldest."""
    return letter.attempts, letter.seq


@frozen
class Turn:
    """The letter that may go next: of that kind and owner, the oldest or the ``newest``.

    ``came_last``: it is their turn because they began to wait last."""

    kind: Lines[Letter]
    whose: str
    newest: bool = False
    came_last: bool = False


class Turns:
    """Letters that are ``new``, those of owners that hang, which go ``slow``-ly, and those that have ``failed``.

    An owner is in ``hanging`` once no answer to one of its letters came in time, until there is an answer to one. The
    slow and the failed ones are held back: half of the places are not for them.
    ``places``: how many go at once, but in an outage, where they go ``one_at_a_time``.
    """

    def __init__(self, places: int) -> None:
        self.new, self.slow, self.failed = (Lines[Letter](_order) for _ in range(3))
        self.hanging: dict[str, bool] = {}  # did the newest of theirs go last
        self.one_at_a_time = False
        self._shares = Shares(places)
        self._most_held_back = max(1, places // 2)
        self._under_way: dict[str, Turn] = {}  # by upload
        self._passed = 0  # new ones that went since the last slow or failed one
        self._was_last = False
        self._was_slow = False  # and not failed

    def __len__(self) -> int:
        return len(self.new) + len(self.slow) + len(self.failed)

    def fresh(self, whose: str) -> Lines[Letter]:
        """Where their letters wait that have never failed."""
        return self.slow if whose in self.hanging else self.new

    def hangs(self, whose: str) -> list[Letter]:
        """They do from now on; what waits of theirs, and has to be lined up again."""
        self.hanging[whose] = False
        return list(self.new.pop(whose))

    def answers(self, whose: str) -> list[Letter]:
        """They hang no longer; what waits of theirs, and has to be lined up again."""
        del self.hanging[whose]
        return list(self.slow.pop(whose))

    def clear(self) -> list[Letter]:
        """Nothing waits any longer, and nobody hangs; what waited."""
        self.hanging.clear()
        return [letter for kind in (self.new, self.slow, self.failed) for letter in kind.clear()]

    def next(self) -> Turn | None:
        """What may go next; None: nothing."""
        held_back = self._next_held_back()
        share = OUTAGE_TURNS if self.one_at_a_time else 2
        if held_back is None or self._passed < share - 1:
            last = self._is_turn_of_last()
            new = self._shares.next(reversed(self.new) if last else self.new)
            if new is not None:
                return Turn(self.new, new, self._is_turn_of_newest(new), last)
        return held_back

    def _is_turn_of_last(self) -> bool:
        """While anybody hangs, who came last and who has waited longest get as many places."""
        if not self.hanging:
            return False
        last = [each.came_last for each in self._under_way.values() if not self._is_held_back(each)]
        return _fewer(last, as_many=not self._was_last)

    def _is_turn_of_newest(self, whose: str) -> bool:
        """If more of their oldest are under way than of their newest; if as many, owners that hang take turns."""
        theirs = [each for each in self._under_way.values() if each.whose == whose and each.kind is not self.failed]
        return _fewer([each.newest for each in theirs], as_many=not self.hanging.get(whose, True))

    def _is_held_back(self, turn: Turn) -> bool:
        return turn.kind is self.failed or turn.whose in self.hanging

    def _next_held_back(self) -> Turn | None:
        """One that is held back: of whom such have the fewest places, else of the kind that has, or did not go last."""
        failed, slow = self._held_back()
        turns = []
        if failed + slow < self._most_held_back:
            used = Counter(each.whose for each in self._under_way.values() if self._is_held_back(each))
            if (whose := self._shares.next(self.slow, used)) is not None:
                turn = Turn(self.slow, whose, self._is_turn_of_newest(whose))
                turns.append((used[whose], slow, self._was_slow, turn))
            if (whose := self._shares.next(self.failed, used)) is not None:
                turns.append((used[whose], failed, not self._was_slow, Turn(self.failed, whose)))
        return min(turns, key=lambda each: each[:3])[-1] if turns else None

    def _held_back(self) -> tuple[int, int]:
        """How many that are held back are under way: that have failed, and others."""
        again = [each.kind is self.failed for each in self._under_way.values() if self._is_held_back(each)]
        return sum(again), len(again) - sum(again)

    @property
    def no_failed_may_go(self) -> bool:
        """Whether none that has failed may go now, whatever comes."""
        return sum(self._held_back()) >= self._most_held_back or self._shares.next(self.failed) is None

    @property
    def somebody_waits(self) -> bool:
        """Whether somebody waits who has none under way: nobody has waited longer."""
        first = self._shares.next(self.new)
        return first is not None and not self._shares.of(first)

    def take(self, turn: Turn) -> Letter:
        """The letter whose turn it is; one of its upload is under way until it `ended`."""
        if turn.kind is self.new:
            self._passed, self._was_last = self._passed + 1, turn.came_last
        else:
            self._passed, self._was_slow = 0, turn.kind is self.slow
        if turn.kind is self.slow:
            self.hanging[turn.whose] = turn.newest
        letter = turn.kind.of(turn.whose)[-1 if turn.newest else 0]
        turn.kind.remove(turn.whose, letter)
        self._shares.take(turn.whose)
        self._under_way[letter.fact.upload_id] = turn
        return letter

    def ended(self, letter: Letter) -> None:
        """None of its upload is under way any more."""
        self._shares.give_back(self._under_way.pop(letter.fact.upload_id).whose)


def _fewer(flags: Sequence[bool], *, as_many: bool) -> bool:
    """Whether fewer of these are true than false; ``as_many``: what it is if neither are."""
    more = 2 * sum(flags) - len(flags)
    return more < 0 or (more == 0 and as_many)
