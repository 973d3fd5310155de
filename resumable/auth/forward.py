"""Authorizes by asking another server, as nginx does with auth_request.

Invariants: only 2xx lets in. 401 and 403 are that server's refusal; anything else (a redirect, 404, silence) refuses
for the moment. Only a yes is remembered, for exactly the same question, and not for long. No client's questions keep
those of others waiting for ever (turns.py).
Spec: https://nginx.org/en/docs/http/ngx_http_auth_request_module.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from resumable.aio.deferreds import Remembered
from resumable.auth import credentials
from resumable.auth.credentials import fingerprint
from resumable.auth.interfaces import AuthRequest, IAuthorizer
from resumable.auth.turns import FairTurns, TurnLimits
from resumable.httpclient.client import Fetched, FetchFailed, IFetch
from resumable.masking import server_of
from resumable.model.principal import Principal
from resumable.networks import counted
from resumable.protocol.errors import Forbidden, Unauthorized, Unavailable

RETRY_AFTER = 5
ROOM = TurnLimits(at_once=128, waiting=512, each=64)
"""Questions: fewer at once would slow many people down where that server is slow."""

log = Logger()


@frozen
class ForwardRules:
    """``headers``: lower-case names of the headers that are passed on. ``name_header``: lower-case name of the
    answer's header with the identity; None: the other server knows whose upload is whose, and everybody it lets in is
    nobody here."""

    url: str = field(repr=False)
    headers: tuple[str, ...] = ("authorization", "cookie")
    name_header: str | None = "remote-user"


@implementer(IAuthorizer)
class ForwardAuth:
    """``remembered``: seconds that being let in counts, 0 for never. ``salt``: random bytes of this process.
    ``afford``: as for `resumable.auth.basic.Basic`."""

    def __init__(
        self,
        rules: ForwardRules,
        fetch: IFetch,
        clock: IReactorTime,
        salt: bytes,
        afford: Callable[[str], None] = lambda address: None,
        *,
        remembered: float = 5.0,
    ) -> None:
        self._rules = rules
        self._fetch = fetch
        self._salt = salt
        self._afford = afford
        self._turns = FairTurns(ROOM)
        self._answers: Remembered[Principal] = Remembered(clock, remembered)

    def authorize(self, request: AuthRequest) -> Deferred[Principal]:
        """See `IAuthorizer.authorize`."""
        headers = self._question(request)
        parts = [f"{name}: {line}".encode("latin-1") for name in sorted(headers) for line in headers[name]]
        key = fingerprint(self._salt, *parts)
        return self._answers.ask(key, lambda: Deferred.fromCoroutine(self._asked(counted(request.peer), headers)))

    def _question(self, request: AuthRequest) -> Mapping[str, Sequence[str]]:
        told = {
            "x-original-method": request.method,
            "x-original-uri": request.uri,
            "x-forwarded-method": request.method,
            "x-forwarded-uri": request.uri,
            "x-forwarded-prefix": request.prefix,
            "x-forwarded-proto": request.scheme,
            "x-forwarded-host": request.host,
            "x-forwarded-for": request.peer,
            "x-upload-action": request.action.value,
            "x-upload-id": quote(request.upload_id or ""),
            "x-upload-length": "" if request.length is None else str(request.length),
        }
        passed = {
            name: request.headers[name] for name in self._rules.headers if name in request.headers and name not in told
        }
        return passed | {name: (line,) for name, line in told.items() if line}

    async def _asked(self, address: str, headers: Mapping[str, Sequence[str]]) -> Principal:
        self._afford(address)
        return await self._turns.take(address, b"", self._ask(headers))

    async def _ask(self, headers: Mapping[str, Sequence[str]]) -> Principal:
        try:
            answer = await self._fetch.get(self._rules.url, headers)
            if 200 <= answer.status < 300:
                return Principal(self._name(answer))
            if answer.status not in (401, 403):
                raise FetchFailed(f"it answers {answer.status}")
        except FetchFailed as problem:
            log.error(
                "{url} doesn't tell who may come in: {problem}", url=server_of(self._rules.url), problem=str(problem)
            )
            raise Unavailable("Whether you may do this can't be told now.", retry_after=RETRY_AFTER) from None
        if answer.status == 403:
            raise Forbidden("You may not do this.")
        challenges = [line for line in answer.headers.get("www-authenticate", ()) if line.isprintable()]
        raise Unauthorized("Credentials are needed, or those that came are wrong.", challenges or [credentials.BEARER])

    def _name(self, answer: Fetched) -> str:
        if self._rules.name_header is None:
            return ""
        lines = answer.headers.get(self._rules.name_header, ())
        try:
            name = lines[0].encode("latin-1").decode() if len(lines) == 1 else ""
        except UnicodeDecodeError:
            name = ""
        if not credentials.valid_name(name):
            raise FetchFailed(f"its answer has no name in {self._rules.name_header}")
        return name
