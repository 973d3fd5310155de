"""The ports of one site: bound before anything is served, looked after while it runs, closed when it stops.

Invariants: a port that can't be bound is a StartupError of one line; a socket that systemd holds outlives the daemon,
and so do the connections that wait in it; so does a socket that the daemon's supervisor has bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import LoopingCall
from twisted.internet.tcp import Port as TcpPort
from twisted.internet.unix import Port as UnixPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from resumable.aio.threads import IPool
from resumable.listening.endpoints import LISTEN, ListeningPoint, Terms, listening_point, why_not_bound, widen_backlog
from resumable.listening.shared_ports import Share, shared_port
from resumable.listening.tls import Certificate
from resumable.model.errors import StartupError

LOOK_EVERY = 60.0
"""Seconds between two looks at the files of certificates."""

log = Logger()


@frozen
class OpenPort:
    """A port that is bound. ``place``: ``host:port``, ``[host]:port`` or ``unix:path``. ``tls``: whether it speaks TLS;
    ``proxied``: whether each connection begins with a header of the PROXY protocol."""

    place: str
    tls: bool = False
    proxied: bool = False

    @property
    def host(self) -> str | None:
        """The address that it listens on; None for a socket in the file system."""
        return None if self.place.startswith("unix:") else self.place.rpartition(":")[0].strip("[]")


class Listeners:
    """``descriptions``: endpoint strings, which ``flag`` sets. ``site_at`` answers the site that each of them serves.

    ``pool``: where files are read. ``wall``: seconds since 1970. ``inherited``: file descriptors of sockets that were
    bound already, in the order of ``descriptions``; none: they are bound here. ``share``: of the connections to them.
    Making one reads certificates; raises StartupError.
    """

    def __init__(
        self,
        reactor: Any,
        descriptions: Sequence[str],
        site_at: Callable[[str], IProtocolFactory],
        terms: Terms,
        *,
        pool: IPool,
        wall: Callable[[], float],
        flag: str = LISTEN,
        inherited: Sequence[int] = (),
        share: Share | None = None,
    ) -> None:
        self._reactor = reactor
        self._site_at = site_at
        self._flag = flag
        self._pool = pool
        self._inherited = inherited
        self._share = Share() if share is None else share
        self._points = [self._point(description, terms, wall) for description in descriptions]
        self._bound: list[tuple[str, ListeningPoint, Any]] = []
        self._renewal = LoopingCall(lambda: Deferred.fromCoroutine(self.reload()))
        self._renewal.clock = reactor

    def _point(self, description: str, terms: Terms, wall: Callable[[], float]) -> ListeningPoint:
        try:
            return listening_point(self._reactor, description, terms, wall)
        except ValueError as error:
            raise StartupError(f"Can't listen on {description}: {error}.") from error

    def bind(self) -> list[str]:
        """Bind all ports; answers their addresses. Nothing is accepted before the reactor runs. Raises StartupError."""
        for number, each in enumerate(self._points):
            port = self._adopt(each, self._inherited[number]) if self._inherited else self._listen(each)
            self._bound.append((_place(port.getHost()), each, port))
        return [place for place, _, _ in self._bound]

    @property
    def open_ports(self) -> list[OpenPort]:
        """Those that are bound, in the order of ``descriptions``."""
        return [
            OpenPort(place, each.certificate is not None, each.trusted is not None) for place, each, _ in self._bound
        ]

    def hold(self) -> list[int]:
        """Leave it to others to accept from the ports that are bound; their file descriptors, in order."""
        for _, _, port in self._bound:
            port.stopReading()
        return [port.fileno() for _, _, port in self._bound]

    def _adopt(self, each: ListeningPoint, descriptor: int) -> Any:
        factory = each.factory(self._reactor, self._site_at(each.description))
        try:
            return shared_port(descriptor, factory, self._reactor, self._share)
        except OSError as error:
            raise StartupError(why_not_bound(each.description, error, self._flag)) from error

    def _listen(self, each: ListeningPoint) -> Any:
        outcome: list[Any] = []
        try:
            each.listen(self._reactor, self._site_at(each.description)).addBoth(outcome.append)
        except ValueError as error:
            raise StartupError(f"Can't listen on {each.description}: {error}.") from error
        (port,) = outcome
        if isinstance(port, Failure):
            raise StartupError(why_not_bound(each.description, port.value or port, self._flag))
        widen_backlog(port)
        return port

    def start(self) -> None:
        """Look for renewed certificates from now on. The pool must have been started."""
        if self._certificates():
            self._renewal.start(LOOK_EVERY).addErrback(
                lambda failure: log.failure("certificates are not looked after any more", failure)
            )

    def _certificates(self) -> list[tuple[str, Certificate]]:
        return [(place, each.certificate) for place, each, _ in self._bound if each.certificate is not None]

    async def reload(self) -> None:
        """Use certificates that were renewed for new connections."""
        for place, certificate in self._certificates():
            await certificate.look(place, self._pool)

    def expiry(self) -> Mapping[str, float]:
        """Seconds that each certificate has left, by the address it is shown at."""
        return {place: certificate.left for place, certificate in self._certificates()}

    async def stop(self) -> None:
        """Close the ports; connections stay."""
        if self._renewal.running:
            self._renewal.stop()
        await gatherResults([Deferred.fromCoroutine(self._close(*each)) for each in self._bound], consumeErrors=True)

    async def _close(self, place: str, each: ListeningPoint, port: Any) -> None:
        if (
            self._inherited or each.handed_over
        ):  # Twisted would shut the socket down for its owner too, and remove its name
            port.stopReading()
            return
        try:
            await maybeDeferred(port.stopListening)
        except OSError as error:
            if not isinstance(port, UnixPort):
                raise
            if not isinstance(error, FileNotFoundError):
                log.warn("the socket {place} stays: {reason}", place=place, reason=error.strerror)
            _close_nameless(port)


def _close_nameless(port: UnixPort) -> None:
    """Close a Unix socket whose name is gone or can't be removed; Twisted stops halfway then."""
    if port.lockFile is not None:
        with suppress(OSError, ValueError):
            port.lockFile.unlock()
    TcpPort.connectionLost(port, Failure(CONNECTION_DONE))


def _place(address: Any) -> str:
    """The address of a port, in a few characters."""
    host = getattr(address, "host", None)
    if host is None:
        name = address.name
        return f"unix:{name.decode(errors='replace') if isinstance(name, bytes) else name}"
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
