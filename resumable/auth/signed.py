"""Upload URLs that carry their own permission: signed for a principal, actions, a path, a size and a time.

Invariant: nothing of a token is looked at before its HMAC is right, compared in constant time; every token expires;
none lists or administers. A token is

    v1.<payload>.<mac>

The payload is a JSON object in base64url without padding, the mac is the HMAC-SHA256, in base64url without padding, of
``v1.<payload>``. Members: ``actions`` (list of words), ``path`` (the URL path that it is for, with all that is below),
``identity``, ``expires`` (seconds since the epoch, a whole number), and ``max_size`` (bytes; may be left out). So any
language signs one in five lines. Spec: RFC 2104, RFC 4648 section 5.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from attrs import frozen
from zope.interface import implementer

from resumable.aio.deferreds import deferred
from resumable.auth import credentials
from resumable.auth.interfaces import AuthRequest, IAuthorizer
from resumable.auth.secret import AccessProblem, Secret, WatchedFile, lines
from resumable.model.principal import EVERYDAY, Action, Principal
from resumable.protocol.errors import Forbidden, Unauthorized

HEADER = "x-upload-token"
PARAMETER = "token"
CHALLENGE = 'Upload-Token realm="resumable"'
LONGEST = 2048
"""Characters of a token: the payload of a name of 255 characters and a long path, and room."""
SHORTEST_KEY = 32
MOST_KEYS = 16

_TOKEN = re.compile(r"v1\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})")
_MEMBERS = frozenset({"actions", "path", "identity", "expires"})


@frozen
class Grant:
    """A token's permission."""

    actions: frozenset[Action]
    path: str
    identity: str
    expires: int
    max_size: int | None = None

    def covers(self, path: str) -> bool:
        """Whether ``path`` is this one or below it, segment by segment."""
        ours, theirs = _segments(self.path), _segments(path)
        return not {"", ".", ".."} & {*ours, *theirs} and theirs[: len(ours)] == ours


def _segments(path: str) -> list[str]:
    trimmed = path.removeprefix("/").removesuffix("/")
    return trimmed.split("/") if trimmed else []


def parse_keys(text: str) -> Sequence[Secret]:
    """One key a line; the first signs, all verify. Raises AccessProblem."""
    keys = [line for _, line in lines(text)]
    if not 1 <= len(keys) <= MOST_KEYS or min(map(len, keys)) < SHORTEST_KEY:
        raise AccessProblem(
            f"the file of keys for signed URLs needs 1 to {MOST_KEYS} lines of {SHORTEST_KEY} characters or more"
        )
    return [Secret(key.encode()) for key in keys]


def sign(key: Secret, grant: Grant) -> str:
    """The token. ValueError for a grant that would not be accepted."""
    members: dict[str, Any] = {
        "actions": sorted(action.value for action in grant.actions),
        "path": grant.path,
        "identity": grant.identity,
        "expires": grant.expires,
    }
    if grant.max_size is not None:
        members["max_size"] = grant.max_size
    if _grant(members) != grant:
        raise ValueError("such a permission can't be signed")
    signed = "v1." + _encode(json.dumps(members, separators=(",", ":"), sort_keys=True).encode())
    token = f"{signed}.{_mac(key, signed)}"
    if len(token) > LONGEST:
        raise ValueError("such a permission is too long")
    return token


def verify(keys: Iterable[Secret], token: str) -> Grant | None:
    """The token's permission, expired or not; None if it isn't one of ours."""
    match = _TOKEN.fullmatch(token) if len(token) <= LONGEST else None
    if match is None:
        return None
    signed, _, mac = token.rpartition(".")
    right = [hmac.compare_digest(_mac(key, signed), mac) for key in keys]
    if not any(right):
        return None
    try:
        return _grant(json.loads(_decode(match[1])))
    except (ValueError, RecursionError):
        return None


def _grant(members: Any) -> Grant:
    """ValueError for anything that isn't exactly right."""
    if not isinstance(members, dict) or not _MEMBERS <= members.keys() <= _MEMBERS | {"max_size"}:
        raise ValueError("not the members of a permission")
    words, path, expires, largest = (members.get(name) for name in ("actions", "path", "expires", "max_size"))
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ValueError("actions are a list of words")
    actions = frozenset(map(Action, words))
    if not actions <= EVERYDAY or not isinstance(path, str) or not path.startswith("/"):
        raise ValueError("an action or a path that can't be given away")
    if type(expires) is not int or (largest is not None and (type(largest) is not int or largest < 0)):
        raise ValueError("expires and max_size are whole numbers")
    if not credentials.valid_name(members["identity"]):
        raise ValueError("identity is a name")
    return Grant(actions, path, members["identity"], expires, largest)


def _mac(key: Secret, signed: str) -> str:
    return _encode(hmac.new(key.reveal(), signed.encode(), hashlib.sha256).digest())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def without_token(uri: str) -> str:
    """The URI as hooks see it, without the token that may be in its query; hooks may go by the rest of the query.

    Logs have no values of a query at all: see `resumable.masking`.
    """
    path, mark, query = uri.partition("?")
    pairs = (
        f"{PARAMETER}=..." if unquote_plus(pair.partition("=")[0]) == PARAMETER else pair for pair in query.split("&")
    )
    return path + mark + "&".join(pairs)


@implementer(IAuthorizer)
class SignedUrls:
    """Tokens in ``?token=`` or in ``X-Upload-Token``. ``wall``: seconds since the epoch."""

    def __init__(self, keys: WatchedFile[Sequence[Secret]], wall: Callable[[], float]) -> None:
        self._keys = keys
        self._wall = wall

    async def mint(
        self, identity: str, path: str, *, actions: Iterable[Action] = EVERYDAY, seconds: float, max_size: int | None
    ) -> str:
        """A token for ``seconds`` from now. ValueError for values that can't be signed; fails with Unavailable."""
        keys = await self._keys.current()
        return sign(keys[0], Grant(frozenset(actions), path, identity, int(self._wall() + seconds), max_size))

    @deferred
    async def authorize(self, request: AuthRequest) -> Principal:
        """See `IAuthorizer.authorize`."""
        in_query = [value for name, value in parse_qsl(request.query) if name == PARAMETER]
        given = [*request.headers.get(HEADER, ()), *in_query]
        if not given:
            raise Unauthorized("A signed URL is needed.", [CHALLENGE])
        grant = verify(await self._keys.current(), given[0]) if len(set(given)) == 1 else None
        if grant is None:
            raise Unauthorized("This URL was not signed here.", [CHALLENGE])
        if self._wall() >= grant.expires:
            raise Unauthorized("This URL has expired.", [CHALLENGE])
        if request.action not in grant.actions or not grant.covers(request.path):
            raise Forbidden("This URL was not signed for that.")
        carry = f"{PARAMETER}={given[0]}" if in_query else ""
        return Principal(grant.identity, grant.max_size, grant.expires, grant.actions, carry)
