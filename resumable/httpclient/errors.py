"""The errors of a request over HTTP, whatever it asks for.

Invariant: every failure of a request becomes one `HttpError`, or CancelledError where the request was cancelled. The
reason holds no secret: of Twisted's words it takes only names, and the fault of a certificate.

::

    HttpError            there is no answer
      Unreached          no connection was made: the request was not sent
        Insecure         the other side's certificate is not trusted
      TimedOut           nothing moved for longer than was allowed
      KeptClosed         the other side had closed a connection that was kept: a new one may well work
      TooLong            the answer has more bytes than were asked for
"""

from __future__ import annotations

from twisted.internet import error
from twisted.internet.defer import CancelledError


class HttpError(Exception):
    """A request has no answer. ``reason``: one line. ``code``: the failure's short name, None where it has none."""

    def __init__(self, reason: str, code: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Unreached(HttpError):
    """No connection was made."""


class Insecure(Unreached):
    """The certificate of the other side is not trusted, or it takes none of our ways to encrypt."""


class TimedOut(HttpError):
    """Nothing moved for ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"nothing moved for {seconds:.0f} s and more", "TimedOut")


class KeptClosed(HttpError):
    """The other side had closed the connection that was kept. Whether it got the request is not known."""

    def __init__(self) -> None:
        super().__init__("the other side closed a kept connection", "KeptConnectionClosed")


class TooLong(HttpError):
    """The answer has more than ``largest`` bytes."""

    def __init__(self, largest: int) -> None:
        super().__init__("the answer is too long")
        self.largest = largest


def error_for(problem: BaseException) -> BaseException:
    """The `HttpError` that this failure of Twisted's client stands for, or CancelledError."""
    if isinstance(problem, HttpError):
        return problem
    causes = causes_of(problem)
    if any(isinstance(cause, CancelledError) for cause in causes):
        return CancelledError()
    for cause in causes:
        if type(cause).__module__.startswith(("OpenSSL", "service_identity")):
            return Insecure(f"no secure connection: {_printable(cause)}")
    if isinstance(problem, error.DNSLookupError):
        return Unreached("the name of the host was not found", "NameNotFound")
    last = causes[-1]
    name = type(last).__name__
    kind = Unreached if isinstance(last, error.ConnectError) else HttpError
    return kind(f"no answer: {name}", name)


def causes_of(problem: BaseException) -> list[BaseException]:
    """The failure, and then those that Twisted keeps inside it."""
    found: list[BaseException] = [problem]
    for reason in getattr(problem, "reasons", ()):
        found.extend(causes_of(reason.value))
    return found


def one_line(problem: BaseException) -> str:
    """A failure of Twisted's client in one line of at most 200 characters, with the failures that it keeps inside."""
    inner = [str(cause) or type(cause).__name__ for cause in causes_of(problem)[1:]]
    return " ".join(("; ".join(inner) or str(problem) or type(problem).__name__).split())[:200]


def _printable(cause: BaseException) -> str:
    return "".join(char if char.isprintable() else "?" for char in f"{type(cause).__name__} {cause}")[:160]
