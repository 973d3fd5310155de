"""What has become of uploads since the start.

One reason to change: something else that is counted of them. Invariant: nothing counts before it is durable.
"""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from resumable.model.upload import Gone


@define
class Counts:
    """Only ever grows; ``gone`` by the reason. ``not_placed``: attempts at a place that have failed."""

    created: int = 0
    finished: int = 0
    placed: int = 0
    not_placed: int = 0
    gone: Counter[Gone] = field(factory=Counter)
