"""Somebody who sends requests, as far as uploads care. Whether they may has been decided before."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen


@frozen
class Principal:
    """``name``: the owner of the uploads that they create, "" for nobody. ``max_size``: bytes of one upload, None for
    no limit of their own. ``pace``: given how many bytes came, it answers for how many seconds to read no more."""

    name: str = ""
    max_size: int | None = None
    pace: Callable[[int], float] | None = None


NOBODY = Principal()
"""The principal of a request without an identity."""
