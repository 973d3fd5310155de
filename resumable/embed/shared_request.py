"""A request on a site that uploads share with resources of somebody else.

Invariants: the body of a request for uploads streams; any other request is what Twisted's own would be: its resource is
asked when the body is complete, which is in ``content``, with cookies, forms and sessions. Where a request belongs is
told by its path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from klein.resource import KleinResource
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString
from twisted.web.resource import IResource
from twisted.web.server import Request, version
from zope.interface import implementer

from resumable.config.options import Settings
from resumable.http import errors
from resumable.http.h1 import Fields
from resumable.http.request import StreamingRequest
from resumable.http.site import Root
from resumable.model.errors import BodyLost


class RequestOwner(Protocol):
    """An upload server, as its requests, resources and sites see it. ``base``: the segments of its base path. ``tree``,
    ``admin_tree``: what answers requests for uploads, and operators; None while it doesn't run."""

    reactor: Any
    settings: Settings
    base: list[bytes]

    @property
    def tree(self) -> Root | None: ...

    @property
    def admin_tree(self) -> KleinResource | None: ...

    def mounted(self) -> None:
        """There is a site on which its bodies stream."""

    def began(self, request: EmbeddedRequest) -> None:
        """The request's head is in."""

    def ended(self, request: EmbeddedRequest, seconds: float) -> None:
        """It was answered, or its client has gone, after so long."""

    def refused(self, status: int) -> None:
        """See `RequestObserver.refused`."""

    def refusal_fields(self, origins: Sequence[bytes]) -> Fields:
        """See `StreamingSite`."""


@implementer(IConsumer)
class _Content:
    """Takes a body into a file, as Twisted's channel does."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass


class EmbeddedRequest(StreamingRequest):
    """``owner``: the server whose uploads it is about; None: none's."""

    owner: RequestOwner | None = None
    _whole = False
    _coding: Any = None  # the encoder of the resource: gzip, say

    def process(self) -> None:
        """See `StreamingRequest.process`."""
        if self._whole:
            self._ask_host()
            return
        site: Any = self.channel.site
        self.owner = site.owner_of(self.postpath)
        if self.owner is not None:
            super().process()
            return
        self.site, self.began, self.sent_method = site, site.seconds(), self.method
        self._whole = True
        self.responseHeaders.put(b"Server", version)
        self.responseHeaders.put(b"Date", datetimeToString())
        if self.body.length == 0:
            self.receive_whole()
        else:
            self._read_body().addErrback(self._unread).addErrback(self.processingFailed)

    def _read_body(self) -> Deferred[None]:
        self.gotLength(self.body.length)  # type: ignore[no-untyped-call]
        return self.body.deliver(_Content(self.content)).addCallback(lambda _: self.receive_whole())

    def _unread(self, failure: Failure) -> None:
        """The body didn't come to its end."""
        failure.trap(BodyLost)
        if not self.gone:
            self.close_after_answer()
            self.write(errors.respond(self, errors.as_tus_error(failure, self)))
            self.finish()

    def _ask_host(self) -> None:
        """As `twisted.web.server.Request.process`."""
        self.prepath = []
        try:
            if self.path == b"*":
                self.answer_asterisk()
                return
            resource: Any = self.site.getResourceFor(self)
            encoder = getattr(resource, "getEncoder", None)
            self._coding = encoder and encoder(self)
            self.render(resource)
        except Exception:
            self.processingFailed(Failure())

    def render(self, resrc: IResource) -> None:
        """See `StreamingRequest.render`."""
        if self.owner is None:
            Request.render(self, resrc)
        else:
            super().render(resrc)

    def getRequestHostname(self) -> bytes:
        """The client's name for the host, where resources of somebody else may go by it."""
        if self.owner is None:
            return Request.getRequestHostname(self)  # type: ignore[no-any-return]
        return super().getRequestHostname()

    def write(self, data: bytes) -> None:
        """Send these bytes of the answer's body, after its head, in which are the fields that Twisted keeps apart."""
        if self.owner is None and not self.startedWriting:
            self._complete_head()
        super().write(self._coding.encode(data) if self._coding else data)

    def _complete_head(self) -> None:
        headers = self.responseHeaders
        length = headers.getRawHeaders(b"content-length")
        if self.code not in (204, 304) and length != [b"0"] and not headers.hasHeader(b"content-type"):
            headers.put(b"content-type", b"text/html")
        if self.lastModified is not None and not headers.hasHeader(b"last-modified"):
            headers.put(b"last-modified", datetimeToString(self.lastModified))
        if self.etag is not None:
            headers.put(b"etag", self.etag)
        if self.cookies:
            headers.setRawHeaders(b"set-cookie", self.cookies)

    def finish(self) -> None:
        """The answer is complete."""
        coding, self._coding = self._coding, None
        rest = coding.finish() if coding and not self.gone else b""
        if rest:
            self.write(rest)
        super().finish()
        self._forget_content()

    def connectionLost(self, reason: Failure) -> None:
        """See `StreamingRequest.connectionLost`."""
        super().connectionLost(reason)
        self._forget_content()

    def _forget_content(self) -> None:
        """Close the file that it may be in."""
        if self._whole and self.content is not None:
            self.content.close()
