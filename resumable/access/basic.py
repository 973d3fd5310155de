"""HTTP Basic with an htpasswd file of bcrypt hashes.

Reason to change: the file's grammar, or what a check may cost. Invariant: an unknown user costs as much as a wrong
password; hashes are reckoned in threads, a bounded number at a time, and once for each user and password in five
minutes. Spec: RFC 7617; https://httpd.apache.org/docs/2.4/programs/htpasswd.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from resumable.access import credentials
from resumable.access.answers import Answers, fingerprint
from resumable.access.interfaces import Ask, IAuthorizer, Identity
from resumable.access.secret import AccessProblem
from resumable.access.watched import WatchedFile, lines
from resumable.protocol.errors import Unauthorized, Unavailable
from resumable.threads import IPool

REMEMBERED = 300.0
"""Seconds for which an outcome is kept."""
MOST_HASHING = 64
"""Passwords that wait for a thread; whoever comes after is told to come back."""
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


@implementer(IAuthorizer)
class Basic:
    """``salt``: random bytes of this process. ``pool``: threads that may be busy with hashes."""

    def __init__(self, users: WatchedFile[Mapping[str, bytes]], pool: IPool, clock: IReactorTime, salt: bytes) -> None:
        check_installed()
        self._users = users
        self._pool = pool
        self._salt = salt
        self._outcomes: Answers[bool] = Answers(clock, REMEMBERED)
        self._hashing = 0

    def authorize(self, ask: Ask) -> Deferred[Identity]:
        """See `IAuthorizer.authorize`."""
        return Deferred.fromCoroutine(self._authorize(ask))

    async def _authorize(self, ask: Ask) -> Identity:
        given = credentials.basic(ask)
        if given is None:
            raise Unauthorized("A user and a password are needed.", [credentials.BASIC])
        user, password = given
        users = await self._users.current()
        known = user in users
        # someone else's hash, as dear as any: how long it takes tells nothing about a name
        hashed = users[user] if known else max(users.values(), key=lambda hashed: hashed[4:6])
        key = fingerprint(self._salt, user.encode(), password, hashed)
        matches = await self._outcomes.ask(key, lambda: Deferred.fromCoroutine(self._check(password, hashed)))
        if not (matches and known):
            raise Unauthorized("The user or the password is wrong.", [credentials.BASIC])
        return Identity(user)

    async def _check(self, password: bytes, hashed: bytes) -> bool:
        if self._hashing >= MOST_HASHING:
            raise Unavailable("Too many passwords are being checked now.", retry_after=5)
        self._hashing += 1
        try:
            return await self._pool.run(_matches, password, hashed)
        finally:
            self._hashing -= 1
