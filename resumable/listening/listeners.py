"""The ports of one site: bound before anything is served, closed when it stops.

Reason to change: what becomes of a port between its start and its end. Invariant: a port that can't be had is a
StartupError of one line; what was bound stays bound until `Listeners.stop`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

from resumable import startup
from resumable.listening.endpoints import endpoint
from resumable.startup import StartupError


class Listeners:
    """``descriptions``: Twisted's endpoint strings, which ``flag`` sets. ``site_at``: what each of them serves.
    ``client_ca``: see `endpoint`."""

    def __init__(
        self,
        reactor: Any,
        descriptions: Sequence[str],
        site_at: Callable[[str], IProtocolFactory],
        *,
        client_ca: Path | None = None,
        client_required: bool = True,
        flag: str = startup.LISTEN,
    ) -> None:
        self.descriptions = tuple(descriptions)
        self.ports: list[IListeningPort] = []
        self._reactor = reactor
        self._site_at = site_at
        self._client_ca = client_ca
        self._client_required = client_required
        self._flag = flag

    def bind(self) -> None:
        """Bind every port. Nothing is accepted before the reactor runs. Raises StartupError."""
        for description in self.descriptions:
            self.ports.append(self._bound(description))

    def _bound(self, description: str) -> IListeningPort:
        outcome: list[IListeningPort | Failure] = []
        try:
            point = endpoint(self._reactor, description, self._client_ca, required=self._client_required)
            point.listen(self._site_at(description)).addBoth(outcome.append)
        except ValueError as error:
            raise StartupError(startup.listen_failed(description, error, self._flag)) from error
        (port,) = outcome
        if isinstance(port, Failure):
            raise StartupError(startup.listen_failed(description, port.value or port, self._flag))
        startup.widen_backlog(port)
        return port

    async def stop(self) -> None:
        """Close the ports; connections stay."""
        waits = [port.stopListening() for port in self.ports]
        await gatherResults([wait for wait in waits if isinstance(wait, Deferred)], consumeErrors=True)
