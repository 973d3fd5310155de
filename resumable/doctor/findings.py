"""What a look at the installation has found.

Changes when what is told of a finding does. Invariant: what isn't well says what to change.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Level = Literal["ok", "warn", "bad"]


@frozen
class Finding:
    """``name``: what was looked at, in a word or two; ``what``: what is the case, in a sentence; ``advice``: what to
    change, nothing where all is well.
    """

    name: str
    level: Level
    what: str
    advice: str = ""
