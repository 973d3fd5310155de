"""The letters that may go next, taken from the outbox.

One reason to change: which letters are here.

Invariants: however many of somebody's wait in the outbox, new ones of others are found behind them, and their own
newest; however many owners, a few thousand letters are here. Of one upload at most one letter is here or under way.
`resumable.hooks.turns` says in which order they go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from twisted.internet.interfaces import IReactorTime

from resumable.hooks.turns import EventTurns, owner_of
from resumable.model.outbox import IOutbox, Letter

FETCH = 64
"""Letters taken from the outbox at once: more is more memory, less is more questions to the catalog. So many of
one owner are here, at most, half of them the oldest and half the newest, and as many that have failed."""

SLOW = 16
"""So many of an owner that hangs: they go slowly."""

SEEN = 2048
"""In one look back at most so many are read, once a second. With more than so many here each owner keeps one; with
twice as many no more are read."""

HANGING = 4096
"""So many owners are known to hang."""


class DueEvents:
    """What is here of one deliverer's letters; ``turns`` holds them.

    ``places``: how many go at once. ``wall`` tells the time of day for the outbox, ``clock`` measures.
    """

    def __init__(
        self, deliverer: str, outbox: IOutbox, places: int, clock: IReactorTime, wall: Callable[[], float]
    ) -> None:
        self.turns = EventTurns(places)
        self._deliverer = deliverer
        self._outbox = outbox
        self._clock = clock
        self._wall = wall
        self._taken: dict[str, Letter] = {}  # by upload, what is here, under way, or not yet recorded
        self._overtaken: dict[str, Letter] = {}  # by upload, older ones that were replayed while that was taken
        self._stale_new = self._stale_failed = True  # there may be such letters that were not looked for since
        self._looked = 0.0  # when failed ones, or many new ones, were last read
        self._read = Reading()

    def hung(self, letter: Letter) -> None:
        """No answer to it came in time: its owner hangs, until there is an answer to one of theirs."""
        whose = owner_of(letter)
        if whose not in self.turns.hanging:
            if len(self.turns.hanging) >= HANGING:
                self._answers(next(iter(self.turns.hanging)))
            self._line_up(self.turns.hangs(whose))

    def answered(self, letter: Letter) -> None:
        """There was an answer to it, whatever it said: its owner hangs no longer."""
        if self.turns.hanging:
            self._answers(owner_of(letter))

    def _answers(self, whose: str) -> None:
        if whose in self.turns.hanging:
            self._line_up(self.turns.answers(whose))

    def _line_up(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            self.add(letter)

    def _most(self, whose: str) -> int:
        """How many of theirs may be here, of one kind."""
        if len(self._taken) > SEEN:
            return 1
        return SLOW if whose in self.turns.hanging else FETCH

    def look(self, *, anew: bool = False) -> None:
        """There may be more in the outbox, behind what was seen; ``anew``: anywhere."""
        self._stale_new = self._stale_failed = True
        self._read.anew |= anew

    def release(self, letters: Iterable[Letter]) -> None:
        """They are neither here nor under way any more: they, or others of their uploads, may be due."""
        for letter in letters:
            self._pass_over(letter)
        self._stale_failed = True

    def _pass_over(self, letter: Letter) -> None:
        self._forget(letter)
        self._read.leave(owner_of(letter), letter.seq)

    def _forget(self, letter: Letter) -> None:
        del self._taken[letter.fact.upload_id]
        overtaken = self._overtaken.pop(letter.fact.upload_id, None)
        if overtaken is not None:
            self._read.leave(owner_of(overtaken), overtaken.seq)

    def replace(self, arrived: Iterable[Letter], behind: Mapping[str, Letter]) -> None:
        """They leave for good. What is ``behind`` them, by upload, is taken; it still has to be `add`-ed, or sent."""
        for letter in arrived:
            self._forget(letter)
        self._taken.update(behind)
        self._stale_failed = True

    def drop(self) -> None:
        """Let everything here be chosen anew, whoever hangs."""
        self.release(self.turns.clear())

    @property
    def looks_again(self) -> bool:
        """Whether the outbox is to be asked in a second, for what wasn't looked for now."""
        return not self.turns.one_at_a_time and (self._stale_failed or self._has_older())

    def _has_older(self) -> bool:
        """Whether somebody may have new ones in the outbox that are older than theirs here."""
        return any(map(self._has_older_in_outbox, self._read.left))

    def _has_older_in_outbox(self, whose: str) -> bool:
        fresh = self.turns.fresh(whose)
        return whose not in fresh or fresh.of(whose)[0].seq > self._read.left[whose]

    def wanted(self) -> tuple[int, int]:
        """How many to fetch: new ones, and others that have failed. One at a time is chosen each time."""
        if len(self._taken) >= 2 * SEEN:
            return 0, 0
        most = 1 if self.turns.one_at_a_time else FETCH
        if self.turns.failed:  # all of somebody's that hang, perhaps, before those of others
            failed = SEEN if self._stale_failed and self._is_later() and self.turns.no_failed_may_go else 0
        else:  # while there are some here, each that arrives is no reason to look
            failed = most if self._stale_failed and (self._is_later() or not self.turns.new) else 0
        if self._goes_back():
            return SEEN if self.turns.somebody_waits else most, failed
        new = self._stale_new and not (self.turns.one_at_a_time and self.turns.somebody_waits)
        return most if new else 0, failed

    def _is_later(self) -> bool:
        return self._clock.seconds() >= self._looked + 1

    def _goes_back(self) -> bool:
        """Whether to read again what was passed over; else, what is behind all that was read."""
        if self._read.anew:
            return self._stale_new
        return self._has_older() and (
            (self._is_later() and not self.turns.one_at_a_time) or not self.turns.somebody_waits
        )

    async def fetch(self) -> list[Letter]:
        """What is due and was not taken; it is from now on, and still has to be `add`-ed."""
        # what is taken while we ask is taken; what is released meanwhile may still be in the answer
        taken, (new, failed) = frozenset(self._taken), self.wanted()
        read, after = self._read, 0
        if new:
            if self._taken:  # else nothing is known to hide anything
                after = read.after(self._has_older_in_outbox) if self._goes_back() else read.seen
            new += sum(letter.seq > after for letter in self._taken.values())
            self._read = Reading()
        failed = failed and failed + len(taken)
        self._stale_new &= not new
        if failed or new >= SEEN:
            self._looked = self._clock.seconds()
        self._stale_failed &= not failed
        try:
            found = await self._outbox.due(self._deliverer, self._wall(), new, failed, after)
        except Exception:
            self._read.anew = True
            raise
        count = sum(not letter.attempts for letter in found)
        self._stale_new |= count >= new > 0
        self._stale_failed |= len(found) - count >= failed > 0
        if new:
            self._read.go_on(read, after, found[count - 1].seq if count else after, full=count >= new)
        return self._chosen(found, taken)

    def _chosen(self, found: Sequence[Letter], taken: frozenset[str]) -> list[Letter]:
        """Take these, but for what was taken, and those that have failed of owners that have enough of them here."""
        chosen, counts = [], Counter[str]()
        for letter in found:
            if letter.fact.upload_id in taken:
                here = self._taken.get(letter.fact.upload_id)
                if here is None:  # its upload became free while we asked
                    self._read.leave(owner_of(letter), letter.seq)
                elif letter.seq < here.seq:  # it was replayed, and goes once that one is neither here nor under way
                    self._overtaken[letter.fact.upload_id] = letter
                continue
            if letter.attempts:
                whose = owner_of(letter)
                if counts[whose] + self.turns.failed.count(whose) >= self._most(whose):
                    continue
                counts[whose] += 1
            self._taken[letter.fact.upload_id] = letter
            chosen.append(letter)
        return chosen

    def add(self, letter: Letter) -> None:
        """It waits for its turn. Where too many of theirs do, one between the oldest and the newest is passed over."""
        whose = owner_of(letter)
        if letter.attempts:
            self.turns.failed.add(whose, letter)
            return
        kind = self.turns.fresh(whose)
        kind.add(whose, letter)
        count = kind.count(whose)
        if count > self._most(whose):
            self._pass_over(kind.leave(whose, count // 2))


class Reading:
    """How far the outbox was read for new letters: up to ``seen``, but for those of some owners.

    ``left``: from where on there may be such of theirs. ``anew``: it has to be read from the start."""

    def __init__(self) -> None:
        self.seen = 0
        self.left: dict[str, int] = {}
        self.anew = False

    def leave(self, whose: str, seq: int) -> None:
        """There may be some of theirs, from this number on."""
        self.left[whose] = min(seq, self.left.get(whose, seq))

    def after(self, wanted_of: Callable[[str], bool]) -> int:
        """Behind which number to read again, for owners that have none here."""
        return 0 if self.anew else min((seq - 1 for whose, seq in self.left.items() if wanted_of(whose)), default=0)

    def go_on(self, before: Reading, after: int, last: int, *, full: bool) -> None:
        """What was known ``before`` all from ``after`` to ``last`` was read; if it wasn't ``full``, all behind it, too.

        What was left since then stays so: it may have come too late to be found."""
        seen = 0 if before.anew else before.seen
        for whose, seq in before.left.items():
            if seq <= after or (full and seq > last):
                self.leave(whose, seq)
            elif full and last < seen:
                self.leave(whose, last + 1)
        self.seen = max(seen, last)
