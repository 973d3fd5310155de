"""What of the outbox was read, and what has to be read again.

One reason to change: what is remembered of letters that were passed over. Pure.

Invariant: a letter that could go is behind all that was read, or its owner is known to have left some from there on.
"""

from __future__ import annotations

from collections.abc import Callable


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
