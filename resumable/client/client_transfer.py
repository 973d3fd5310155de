"""What one transfer has at hand: its options, its name, where its events go, the time, and requests that are answered.

Invariants: credentials, and fields that the user has given, go only to the origin that they were given for, and never
in clear where that was TLS; events come one at a time. No I/O here: requests are effects.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from attrs import evolve, frozen

from resumable.client.client_options import ClientOptions, web_address
from resumable.client.effects import Exchange, HttpReply, Lost, Steps
from resumable.client.events import Moved, TransferEvent
from resumable.client.exceptions import BadOption
from resumable.client.links import PORTS, LinkOrigin, origin_of
from resumable.client.patience import ClientPatience
from resumable.client.speech import Pairs, joined
from resumable.client.state_file import StateFile

REDIRECTS = 5
"""As many are followed for one request."""
PACE = 0.1
"""Seconds, at least, between two events of progress."""
T = TypeVar("T")


@frozen(kw_only=True)
class Surroundings:
    """What a face gives to the core: clocks (of the wall, and one that never goes back), a source of randomness."""

    wall: Callable[[], float]
    now: Callable[[], float]
    random: Callable[[], float]


class ClientTransfer:
    """One call of put or get. ``address`` may have a user and a password. Raises BadOption."""

    def __init__(
        self,
        name: str,
        address: str,
        options: ClientOptions,
        state: StateFile,
        tell: Callable[[TransferEvent], None],
        around: Surroundings,
    ) -> None:
        self.name, self.options, self.state, self.tell, self.around = name, options, state, tell, around
        parts = urlsplit(web_address(address))
        host = parts.netloc.rpartition("@")[2]
        self.address = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        self._user = options.user
        if self._user is None and parts.username is not None:
            self._user = unquote(parts.username), unquote(parts.password or "")
        self._home = origin_of(self.address)
        self.begun = around.now()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self.around.now() - self.begun

    def patience(self) -> ClientPatience:
        """The retries of one strand of it."""
        options, around = self.options, self.around
        return ClientPatience(self.name, options.retry_for, options.may_send, self.tell, around.now, around.random)

    def patiently(self, steps: Callable[[], Steps[T]], begun: bool = True) -> Steps[T]:
        """The result of these steps, tried again while that may help. ``begun``: as of `ClientPatience.after`. Raises
        GaveUp."""
        patience = self.patience()
        while True:
            try:
                yield from patience.window()
                return (yield from steps())
            except Lost as trouble:
                yield from patience.after(trouble, begun)

    def ask(self, exchange: Exchange) -> Steps[tuple[HttpReply, str]]:
        """The answer, and the URL that gave it: redirections are followed."""
        url = exchange.url
        for _ in range(REDIRECTS):
            fields = [*self._users_fields(url), *exchange.fields]
            if not any(name.lower() == "user-agent" for name, _ in fields):
                fields.insert(0, ("User-Agent", "resumable"))
            reply: HttpReply = yield evolve(exchange, url=url, fields=fields)
            location = reply.get("location")
            if reply.status not in (301, 302, 307, 308) or location is None:
                return reply, url
            # A POST keeps its method: it makes an upload here as there, and the other end speaks tus as well.
            target = joined(url, location)
            if url.startswith("https:") and not target.startswith("https:"):
                raise BadOption(f"{url} leads to {target}, which isn't encrypted: nothing is sent there")
            url = web_address(target)
        raise Lost(f"{exchange.url} leads in a circle")

    def _users_fields(self, url: str) -> Pairs:
        """Credentials, and fields that may be some, too: not for another host or port, which may be somebody else's."""
        there, home = origin_of(url), self._home
        secured = there == LinkOrigin("https", home.host, PORTS["https"]) and home.port == PORTS["http"]
        if there == home or secured:
            return [*self._credentials(), *self.options.headers.items()]
        return []

    def _credentials(self) -> Pairs:
        if (token := self.options.bearer()) is not None:
            return [("Authorization", f"Bearer {token}")]
        if self._user is not None:
            return [("Authorization", "Basic " + b64encode(":".join(self._user).encode()).decode())]
        return []


class Meter:
    """The progress of all strands of a transfer, told ten times a second.

    ``run`` counts bytes of this run only, each once, also where some had to be sent again.
    """

    def __init__(self, transfer: ClientTransfer, total: int | None) -> None:
        self.total = total
        self._transfer = transfer
        self._acknowledged: dict[object, int] = {}
        self._flying: dict[object, int] = {}
        self.gained = 0
        self._told = -PACE

    def known(self, strand: object, offset: int) -> None:
        """The server had so many bytes before this run, or has begun anew."""
        self._acknowledged[strand] = offset
        self._flying[strand] = 0

    def acknowledged(self, strand: object, offset: int) -> None:
        """The server has so many bytes of this strand."""
        self.gained += max(0, offset - self._acknowledged.get(strand, 0))
        self.known(strand, offset)
        self._tell()

    def flying(self, strand: object, count: int) -> None:
        """So many more are on their way."""
        self._flying[strand] = count
        now = self._transfer.around.now()
        if now - self._told >= PACE:
            self._tell()

    def _tell(self) -> None:
        self._told = self._transfer.around.now()
        acknowledged, flying = sum(self._acknowledged.values()), sum(self._flying.values())
        self._transfer.tell(
            Moved(
                source=self._transfer.name,
                sent=acknowledged + flying,
                acknowledged=acknowledged,
                total=self.total,
                run=self.gained + flying,
            )
        )
