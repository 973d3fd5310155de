"""What is asked about a request, and what an authorizer answers.

Reason to change: a request has more to tell, or an authorizer more to say. Invariant: an authorizer lets in by
answering with an `Identity`; whatever else happens, an unexpected failure included, lets nobody in.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from resumable.protocol.fields import LARGEST


class Action(enum.Enum):
    """What a request wants. INSPECT is HEAD, READ a download, STATUS one upload's state, LIST everybody's uploads."""

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
"""What somebody who was let in may do, with uploads of their own."""


@frozen
class Subject:
    """The client's certificate, verified during the TLS handshake. ``dn`` is written as in RFC 4514."""

    dn: str
    common_names: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()


@frozen
class Ask:
    """One request, before its body is read.

    ``path`` is percent-decoded and without query, ``query`` is raw and without question mark. ``headers`` have
    lower-case names and their lines in order. ``host`` and ``scheme`` are those that the client used, ``peer`` is its
    IP address ("" on a unix socket). ``length`` is the upload's, None when unknown or not a creation; ``metadata`` is
    the header's value, verbatim. ``prefix`` is what a trusted proxy has taken off the path.
    """

    action: Action
    method: str
    path: str
    query: str = field(default="", repr=False)
    headers: Mapping[str, Sequence[str]] = field(factory=dict, repr=False)
    upload_id: str | None = None
    scheme: str = "http"
    host: str = ""
    peer: str = ""
    tls: Subject | None = None
    length: int | None = None
    metadata: str | None = None
    prefix: str = ""

    @property
    def uri(self) -> str:
        """Path and query as others are told."""
        return uri_of(self.path, self.query)

    def one(self, name: str) -> str | None:
        """The only line of a header field; None if there is none, or if there are several."""
        lines = self.headers.get(name, ())
        return lines[0] if len(lines) == 1 else None


def uri_of(path: str, query: str) -> str:
    """A decoded path and a raw query in the one spelling that others are told, so that they judge what is routed."""
    return quote(path, safe="/:@!$&'()*+,;=-._~") + (f"?{query}" if query else "")


def _countable(size: int | None) -> int | None:
    """Who may store more than any catalog counts may store as much as that."""
    return None if size is None else min(size, LARGEST)


@frozen
class Limits:
    """``max_size``: bytes of one upload. ``until``: nothing begins at or after it (seconds since the epoch)."""

    max_size: int | None = field(default=None, converter=_countable)
    until: float | None = None

    def largest(self, max_size: int | None) -> int | None:
        """The lower one of two maxima, None for no limit."""
        sizes = [size for size in (self.max_size, max_size) if size is not None]
        return min(sizes, default=None)


@frozen
class Identity:
    """Somebody who was let in.

    ``name`` is stored with each upload that they create, and only they get to see it again; "" is nobody in particular:
    what they create is bound to nobody. ``carry`` is a query for the Location of what they create, so that a client
    that knows only URLs goes on with the same credentials.
    """

    name: str
    limits: Limits = Limits()
    actions: frozenset[Action] = EVERYDAY
    carry: str = field(default="", repr=False)


class IAuthorizer(Interface):
    """Tells who is asking. Whose upload it is has been left to `resumable.auth.guard`."""

    def authorize(ask: Ask) -> Deferred[Identity]:
        """Who it is.

        Fails with Unauthorized (no credentials, or wrong ones), Forbidden (known, but not for this), or Unavailable
        (can't be told now). Never blocks.
        """
