"""A request as authorizers see it, and the interface of authorizers.

Invariant: an authorizer lets in by answering with a `Principal`; whatever else happens, an unexpected failure included,
lets nobody in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from resumable.model.principal import Action, Principal


@frozen
class Subject:
    """The client's certificate, verified during the TLS handshake. ``dn`` is written as in RFC 4514."""

    dn: str
    common_names: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()


@frozen
class AuthRequest:
    """One request, before its body is read.

    ``path`` is percent-decoded and without query, ``query`` is raw and without question mark. ``headers`` have
    lower-case names and their lines in order. ``host`` and ``scheme`` are those that the client used, ``peer`` is its
    IP address ("" on a unix socket). ``length`` is the upload's, None when unknown or not a creation; ``metadata`` is
    the header's value, verbatim. ``prefix``: the part of the path that a trusted proxy has removed.
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
        """Path and query as other servers get them."""
        return uri_of(self.path, self.query)

    def one(self, name: str) -> str | None:
        """The only line of a header field; None if there is none, or if there are several."""
        lines = self.headers.get(name, ())
        return lines[0] if len(lines) == 1 else None


def uri_of(path: str, query: str) -> str:
    """A decoded path and a raw query in one spelling: others judge the address that is routed."""
    return quote(path, safe="/:@!$&'()*+,;=-._~") + (f"?{query}" if query else "")


class IAuthorizer(Interface):
    """Finds out whose request it is. Whose upload it is for, `resumable.auth.guard` finds out."""

    def authorize(request: AuthRequest) -> Deferred[Principal]:
        """The principal whose request this is.

        Fails with Unauthorized (no credentials, or wrong ones), Forbidden (known, but not for this), or Unavailable
        (can't be told now). Never blocks.
        """
