"""Who has sent a request, as far as uploads care.

Reason to change: something else about somebody changes what becomes of their uploads. Who they are, and whether they
may, has been decided before.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen


@frozen
class Principal:
    """``name``: whose the uploads are that they create, "" for nobody's. ``max_size``: bytes of one upload, None for no
    limit of their own. ``pace``: told how many bytes came, it answers for how many seconds to read no more."""

    name: str = ""
    max_size: int | None = None
    pace: Callable[[int], float] | None = None


NOBODY = Principal()
"""Somebody in particular is not known."""
