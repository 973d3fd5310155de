"""Asking another server: what nginx calls auth_request.

Reason to change: what that server is told, or what its answers mean. Invariant: only 2xx lets in; 401 and 403 are its
refusal, anything else (a redirect, 404, silence) refuses for the moment; only letting in is remembered, for exactly the
same question, and not for long; nobody's questions keep everybody else's from being asked (turns.py). Spec: https://nginx.org/en/docs/http/ngx_http_auth_request_module.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from resumable.auth import credentials
from resumable.auth.answers import Answers, fingerprint
from resumable.auth.fetch import Fetched, FetchFailed, IFetch
from resumable.auth.interfaces import Ask, IAuthorizer, Identity
from resumable.auth.turns import Room, Turns
from resumable.masking import server_of
from resumable.networks import counted
from resumable.protocol.errors import Forbidden, Unauthorized, Unavailable

RETRY_AFTER = 5
ROOM = Room(at_once=128, waiting=512, each=64)
"""Questions: fewer at once would slow many people down where that server is slow."""

log = Logger()


@frozen
class ForwardRules:
    """``headers``: lower-case names of what is passed on. ``name_header``: lower-case name of the answer's header with
    the identity; None: the other server knows whose upload is whose, and everybody it lets in is nobody here."""

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
        self._turns = Turns(ROOM)
        self._answers: Answers[Identity] = Answers(clock, remembered)

    def authorize(self, ask: Ask) -> Deferred[Identity]:
        """See `IAuthorizer.authorize`."""
        headers = self._question(ask)
        parts = [f"{name}: {line}".encode("latin-1") for name in sorted(headers) for line in headers[name]]
        key = fingerprint(self._salt, *parts)
        return self._answers.ask(key, lambda: Deferred.fromCoroutine(self._asked(counted(ask.peer), headers)))

    def _question(self, ask: Ask) -> Mapping[str, Sequence[str]]:
        told = {
            "x-original-method": ask.method,
            "x-original-uri": ask.uri,
            "x-forwarded-method": ask.method,
            "x-forwarded-uri": ask.uri,
            "x-forwarded-prefix": ask.prefix,
            "x-forwarded-proto": ask.scheme,
            "x-forwarded-host": ask.host,
            "x-forwarded-for": ask.peer,
            "x-upload-action": ask.action.value,
            "x-upload-id": quote(ask.upload_id or ""),
            "x-upload-length": "" if ask.length is None else str(ask.length),
        }
        passed = {name: ask.headers[name] for name in self._rules.headers if name in ask.headers and name not in told}
        return passed | {name: (line,) for name, line in told.items() if line}

    async def _asked(self, address: str, headers: Mapping[str, Sequence[str]]) -> Identity:
        self._afford(address)
        return await self._turns.take(address, b"", self._ask(headers))

    async def _ask(self, headers: Mapping[str, Sequence[str]]) -> Identity:
        try:
            answer = await self._fetch.get(self._rules.url, headers)
            if 200 <= answer.status < 300:
                return Identity(self._name(answer))
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
