"""Work that only one may do at a time over a shared catalog: the place that grants it.

One process has every role. Several processes will ask here, and nowhere else, whether a role is theirs.
"""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet.defer import succeed
from zope.interface import Interface, implementer

JANITOR = "janitor"
ASSEMBLER = "assembler"
REPLICATION = "replication"


class IRoles(Interface):
    """Grants single-worker roles."""

    def granted(role: str) -> Awaitable[bool]:
        """Whether this process may do the role's work now."""


@implementer(IRoles)
class LocalRoles:
    """Roles of the only process: the lock on the upload directory has granted them all."""

    def granted(self, role: str) -> Awaitable[bool]:
        return succeed(True)
