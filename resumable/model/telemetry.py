"""Measurements for operators while work is done: sizes and times, and the request they belong to.

Invariant: counting takes no lock and makes no object; one thread counts, any thread may read, and is at most
one measurement behind. A coroutine keeps the request that was set when it began, whatever runs between its steps
(PEP 567, which Twisted's coroutines follow); work that belongs to no request sets it to nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from contextvars import ContextVar
from itertools import accumulate
from typing import Final

from attrs import frozen


class Tally:
    """Measurements by size. ``bounds``: the upper bound, included, of each bucket but the last, which has none."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        #: The sum of all measurements.
        self.total = 0.0

    def add(self, value: float) -> None:
        """One more measurement."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many measurements there were."""
        return sum(self.counts)

    def cumulated(self) -> list[tuple[str, float]]:
        """How many were at most so large: bounds as Prometheus writes them ("+Inf" the last), and their counts."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


@frozen
class SpoolState:
    """Of a spool in an object store. ``up``: it can be relied upon. Scratch in bytes. ``lost``: how often it was
    found to lack bytes of a finished upload, since the start."""

    up: bool
    scratch_used: int
    scratch_limit: int
    lost: int = 0


REQUEST: Final[ContextVar[str]] = ContextVar("request", default="")
"""The request's X-Request-ID; empty for none."""
