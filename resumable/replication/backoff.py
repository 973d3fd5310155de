"""How long to wait after a failure.

One reason to change: the pauses. Pure. Invariant: a pause is never shorter than what the store asked for, and never
longer than the bound unless it did.
Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("full jitter").
"""

from __future__ import annotations

from random import Random

from attrs import frozen

LONGEST_ASKED = 3600.0
"""Seconds; a store that asks for more is asked again after this."""


@frozen
class Backoff:
    """``base`` seconds, doubled with each failure in a row up to ``most``."""

    base: float
    most: float

    def ceiling(self, failures: int) -> float:
        """The longest pause after so many failures in a row (1: the first)."""
        return min(self.most, self.base * 2.0 ** min(failures - 1, 62))

    def pause(self, failures: int, rng: Random, asked: float | None = None) -> float:
        """Anything up to the ceiling, and at least what was ``asked`` for."""
        return max(rng.uniform(0, self.ceiling(failures)), min(asked or 0.0, LONGEST_ASKED))
