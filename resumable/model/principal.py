"""The principal that a request is made by, and the actions that principals may do.

Invariant: only an authorizer or the guard makes a `Principal` for somebody; a request without one may do nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from attrs import field, frozen

from resumable.protocol.fields import LARGEST


class Action(enum.Enum):
    """The purpose of a request. INSPECT is HEAD, READ a download, STATUS one upload's state, LIST all uploads."""

    CREATE = "create"
    APPEND = "append"
    INSPECT = "inspect"
    READ = "read"
    TERMINATE = "terminate"
    STATUS = "status"
    LIST = "list"
    ADMIN = "admin"


ALL = frozenset(Action)
EVERYDAY = ALL - {Action.LIST, Action.ADMIN}
"""The actions of a client that was let in, with uploads of its own."""


def _countable(size: int | None) -> int | None:
    """A size that a catalog can keep: as much as that is no limit."""
    return None if size is None else min(size, LARGEST)


@frozen
class Principal:
    """A client that was let in.

    ``name`` is stored with each upload that they create, and only they get to see it again; "" is nobody in particular:
    what they create is bound to nobody. ``max_size``: bytes of one upload, None for no limit of their own. ``until``:
    nothing begins at or after it (seconds since the epoch). ``carry`` is a query for the Location of what they create,
    so that a client that knows only URLs goes on with the same credentials. ``pace`` is called with how many bytes
    came, and answers for how many seconds to read no more; None: at any pace.
    """

    name: str = ""
    max_size: int | None = field(default=None, converter=_countable)
    until: float | None = None
    actions: frozenset[Action] = EVERYDAY
    carry: str = field(default="", repr=False)
    pace: Callable[[int], float] | None = field(default=None, repr=False)

    @property
    def is_admin(self) -> bool:
        """Whether they may do everything, with everybody's uploads."""
        return Action.ADMIN in self.actions


NOBODY = Principal()
"""Nobody in particular."""
