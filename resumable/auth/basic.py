"""HTTP Basic with an htpasswd file of bcrypt hashes.

Invariants: an unknown user takes the same check, the same time and the same place in line as a known one. Threads
compute the hashes, in turns (turns.py), so wrong passwords delay nobody by more than a bounded number of checks. A
right password is hashed once in five minutes for each address. It is remembered for that address only: otherwise
somebody that guesses would get the answer at once, and not after the time of a hash. Spec: RFC 7617; https://httpd.apache.org/docs/2.4/programs/htpasswd.html
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from resumable.aio.deferreds import Remembered, deferred
from resumable.aio.threads import IPool
from resumable.auth import credentials
from resumable.auth.credentials import fingerprint
from resumable.auth.interfaces import AuthRequest, IAuthorizer
from resumable.auth.secret import AccessProblem, WatchedFile, lines
from resumable.auth.turns import FairTurns, TurnLimits
from resumable.model.principal import Principal
from resumable.networks import counted
from resumable.protocol.errors import Unauthorized

REMEMBERED = 300.0
"""Seconds for which a password that was right needs no hash."""
MOST_FAMILIAR = 4096
"""Users, each with an address, that go before strangers in the line for hashes."""
HASHING_THREADS = 2
"""bcrypt takes a core for each; more would leave none to the uploads."""
DEAREST = 16
"""Cost of a hash: each step doubles its time, and 16 are seconds already."""
SIGNIFICANT = 72
"""Bytes of a password that bcrypt looks at; htpasswd cuts it there too."""

# the last character of the salt holds two bits, the last of the hash four
_HASH = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")


def parse_htpasswd(text: str) -> Mapping[str, bytes]:
    """Users and their hashes. Raises AccessProblem."""
    users: dict[str, bytes] = {}
    for number, line in lines(text):
        user, _, hashed = line.partition(":")
        match = _HASH.fullmatch(hashed)
        if not match or not 4 <= int(match[1]) <= DEAREST:
            raise AccessProblem(
                f"line {number} of the password file is no user and bcrypt hash of cost 4 to {DEAREST};"
                " make one with: htpasswd -B"
            )
        if not credentials.valid_name(user) or user in users:
            raise AccessProblem(f"line {number} of the password file: the user is malformed or was there before")
        users[user] = hashed.encode()
    if not users:
        raise AccessProblem("the password file has no users")
    return users


def check_installed() -> None:
    """Raises AccessProblem without the package that this needs."""
    try:
        import bcrypt  # noqa: F401
    except ImportError:
        raise credentials.needs("basic", "bcrypt") from None


def _matches(password: bytes, hashed: bytes) -> bool:
    """In a thread."""
    import bcrypt

    return b"\0" not in password and bcrypt.checkpw(password[:SIGNIFICANT], hashed)


def standing_in(users: Mapping[str, bytes], user: str) -> bytes:
    """The hash that is computed for an unknown user: always the same for a name, and as expensive as others' are.

    Nobody can know which one it is without the file. With one cost for all unknown users, the known users with another
    cost would show by the time that they take.
    """
    hashes = list(users.values())
    chosen = fingerprint(hashes[0], user.encode())
    return hashes[int.from_bytes(chosen[:8], "big") % len(hashes)]


@frozen
class _PasswordCheck:
    """``place``: of the user at the address. ``there``: whether the user is; if not, the hash is another's."""

    address: str
    place: bytes
    password: bytes = field(repr=False)
    hashed: bytes = field(repr=False)
    there: bool


class _Wrong(Exception):
    """The password isn't the one."""


@implementer(IAuthorizer)
class Basic:
    """``salt``: random bytes of this process. ``pool``: threads that may be busy with hashes. ``afford`` is asked with
    the address, as `counted` has it, before a hash is reckoned, and may raise TooManyRequests."""

    def __init__(
        self,
        users: WatchedFile[Mapping[str, bytes]],
        pool: IPool,
        clock: IReactorTime,
        salt: bytes,
        afford: Callable[[str], None] = lambda address: None,
    ) -> None:
        check_installed()
        self._users = users
        self._pool = pool
        self._salt = salt
        self._afford = afford
        self._right: Remembered[None] = Remembered(clock, REMEMBERED)
        self._turns = FairTurns(TurnLimits(HASHING_THREADS))
        self._familiar: OrderedDict[bytes, None] = OrderedDict()

    @deferred
    async def authorize(self, request: AuthRequest) -> Principal:
        """See `IAuthorizer.authorize`."""
        given = credentials.basic(request)
        if given is None:
            raise Unauthorized("A user and a password are needed.", [credentials.BASIC])
        user, password = given
        users = await self._users.current()
        hashed = users.get(user) or standing_in(users, user)
        address = counted(request.peer)
        place = fingerprint(self._salt, address.encode(), user.encode(), hashed)
        attempt = _PasswordCheck(address, place, password, hashed, user in users)
        try:
            await self._right.ask(
                fingerprint(self._salt, place, password), lambda: Deferred.fromCoroutine(self._check(attempt))
            )
        except _Wrong:
            raise Unauthorized("The user or the password is wrong.", [credentials.BASIC]) from None
        return Principal(user)

    async def _check(self, attempt: _PasswordCheck) -> None:
        """Raises _Wrong, TooManyRequests, Unavailable."""
        place, known = attempt.place, attempt.place in self._familiar
        if not known:  # others at the same address mustn't shut out a user that was let in there before
            self._afford(attempt.address)
        right = await self._turns.take(attempt.address, place, self._reckoned(attempt), known=known)
        if not (right and attempt.there):
            raise _Wrong
        self._familiar[place] = None
        self._familiar.move_to_end(place)
        if len(self._familiar) > MOST_FAMILIAR:
            self._familiar.popitem(last=False)

    async def _reckoned(self, attempt: _PasswordCheck) -> bool:
        return await self._pool.run(_matches, attempt.password, attempt.hashed)
