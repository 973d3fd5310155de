"""The site for a program that has uploads among its own resources: in place of `twisted.web.server.Site`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.web.resource import IResource

from resumable.embed.shared_request import EmbeddedRequest, RequestOwner
from resumable.http.request import RequestObserver, StreamingRequest
from resumable.http.site import StreamingSite


class StreamingTree(StreamingSite):
    """A site of the program's own tree, ``root``, in which the ``resource`` of each of the ``servers`` is at that one's
    base path. Bodies of uploads stream; all other requests are as on Twisted's site.

    The first server's network timeout, lowest rate and choice of HTTP/2 hold for all connections.
    """

    requestFactory = EmbeddedRequest

    def __init__(self, root: IResource, *servers: RequestOwner, alone: bool = False) -> None:
        if not servers:
            raise TypeError("site() takes the tree of resources, and one upload server at least")
        settings = servers[0].settings
        super().__init__(
            root,
            reactor=servers[0].reactor,
            network_timeout=settings.network_timeout,
            min_rate=settings.min_rate,
            direct_from=settings.direct_from,
            refusal_fields=servers[0].refusal_fields,
            watch=_OwnersWatch(servers[0]),
            http2=settings.http2,
            h2c=settings.h2c,
        )
        for each in servers:
            each.mounted()
        self._servers = servers
        self._alone = alone

    def owner_of(self, path: Sequence[bytes]) -> RequestOwner | None:
        """The server whose uploads are at this path, in decoded segments; None: another resource's."""
        if self._alone:
            return self._servers[0]
        return next((each for each in self._servers if list(path[: len(each.base)]) == each.base), None)


class _OwnersWatch(RequestObserver):
    """Tells each server of its requests. ``first`` counts what is no request."""

    def __init__(self, first: RequestOwner) -> None:
        self._first = first

    def prepare(self, request: StreamingRequest) -> None:
        owner = _owner(request)
        if owner is not None:
            owner.began(request)

    def done(self, request: StreamingRequest, seconds: float) -> None:
        owner = _owner(request)
        if owner is not None:
            owner.ended(request, seconds)

    def refused(self, status: int) -> None:
        self._first.refused(status)


def _owner(request: StreamingRequest) -> Any:
    return request.owner if isinstance(request, EmbeddedRequest) else None


def site(root: IResource, *servers: RequestOwner) -> StreamingTree:
    """See `StreamingTree`."""
    return StreamingTree(root, *servers)
