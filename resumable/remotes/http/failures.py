"""What a failure of a request over HTTP means to us.

One reason to change: a failure of Twisted's client that asks for another reaction. Pure.

Invariant: every failure becomes one `RemoteError`, or CancelledError where the request was given up; of what Twisted
says only names get into the reason, and what is wrong with a certificate.
"""

from __future__ import annotations

from twisted.internet import error
from twisted.internet.defer import CancelledError

from resumable.remotes.errors import RemoteError, Transient, Unusable

NAME_NOT_FOUND = "NameNotFound"
"""The code of a failure to find the address of a host."""


def timed_out(seconds: float) -> RemoteError:
    """Nothing has moved for so long."""
    return Transient(f"nothing moved for {seconds:.0f} s and more", code="TimedOut")


def meaning(problem: BaseException) -> BaseException:
    """The error that this failure of a request stands for."""
    if isinstance(problem, RemoteError):
        return problem
    causes = causes_of(problem)
    if any(isinstance(cause, CancelledError) for cause in causes):
        return CancelledError()
    for cause in causes:
        if type(cause).__module__.startswith(("OpenSSL", "service_identity")):
            return Unusable(f"no secure connection: {_tls(cause)}", advice="check the certificate and the address")
    if isinstance(problem, error.DNSLookupError):
        return Transient("the store's name was not found", code=NAME_NOT_FOUND, advice="check endpoint and region")
    last = causes[-1]
    return Transient(f"no answer: {type(last).__name__}", code=type(last).__name__)


def causes_of(problem: BaseException) -> list[BaseException]:
    """What it was made of, and itself."""
    found: list[BaseException] = [problem]
    for reason in getattr(problem, "reasons", ()):
        found.extend(causes_of(reason.value))
    return found


def _tls(cause: BaseException) -> str:
    return "".join(char if char.isprintable() else "?" for char in f"{type(cause).__name__} {cause}")[:160]
