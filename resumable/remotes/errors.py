"""The errors of a remote, sorted by the right reaction.

Invariant: ``reason`` is one line for the operator and holds no secret: no key, token, signature or signed URL.

::

    RemoteError
      Transient        try again after a pause: network, 5xx, time-out, a checksum that did not match
        Throttled      the same, and the store said how long
      Unusable         try again slowly: somebody must change something (bucket, region, mount, clock)
        AuthFailed     credentials missing, wrong, expired, or without the right
      OutOfStep        ask `get_upload_progress` and go on from there
        NotThere       nothing is known of the upload (any more): `initiate_upload`, then the same
      Permanent        don't try again: park the replica with the reason
        Conflict       the key holds an object that isn't ours
        CannotCopy     the store can't copy these bytes by itself: send them
        Unwelcome      the store minds what the client wrote into the metadata: the object can do without
"""

from __future__ import annotations

from resumable.httpclient.errors import HttpError, Insecure, Unreached


class RemoteError(Exception):
    """A remote did not do what it was asked.

    ``may_retry``: whether the same may work later, without anybody giving the replica up. ``about_remote``: the whole
    remote is concerned, so other uploads will fare the same (a circuit breaker counts these). ``status`` and ``code``
    are the store's own words (503, "SlowDown"), where it had any. ``advice`` says what to change.
    """

    may_retry: bool = False
    about_remote: bool = False

    def __init__(self, reason: str, *, status: int | None = None, code: str | None = None, advice: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.code = code
        self.advice = advice
        #: Whether the store has surely not done it, and won't: it was not reached, or has refused.
        self.undone = False


class Transient(RemoteError):
    """It may work next time. Whether the store did it nevertheless is not known."""

    may_retry = True
    about_remote = True


class Throttled(Transient):
    """The store asks for a pause of ``retry_after`` seconds; None when it didn't say how long."""

    def __init__(
        self,
        reason: str,
        retry_after: float | None = None,
        *,
        status: int | None = None,
        code: str | None = None,
        advice: str = "",
    ) -> None:
        super().__init__(reason, status=status, code=code, advice=advice)
        self.retry_after = retry_after


class Unusable(RemoteError):
    """The remote cannot be used as it is set up; it works again when somebody changes something."""

    may_retry = True
    about_remote = True


class AuthFailed(Unusable):
    """The store does not let us in. Credentials that can be refreshed were refreshed before this is raised."""


class OutOfStep(RemoteError):
    """The call builds on bytes that are not confirmed; ``progress`` of them, from the start, are (None: unknown)."""

    may_retry = True

    def __init__(
        self,
        reason: str,
        progress: int | None = None,
        *,
        status: int | None = None,
        code: str | None = None,
        advice: str = "",
    ) -> None:
        super().__init__(reason, status=status, code=code, advice=advice)
        self.progress = progress


class NotThere(OutOfStep):
    """Nothing is known of the upload: never initiated, aborted, or its parts are gone from the store.

    `initiate_upload` starts it anew; its bytes have to be written again.
    """

    def __init__(self, reason: str, *, status: int | None = None, code: str | None = None, advice: str = "") -> None:
        super().__init__(reason, 0, status=status, code=code, advice=advice)


class Permanent(RemoteError):
    """It will fail each time: a size or a name that the store never takes."""


class Conflict(Permanent):
    """There is an object under the key that does not carry this upload's id, and it may not be replaced."""


class CannotCopy(Permanent):
    """The store doesn't copy these bytes by itself: they have to be read and written."""


class Unwelcome(Permanent):
    """The store takes no object with this metadata, or of this type or file name; `plainer` has it go without."""


def remote_error(error: HttpError, operation: str = "") -> RemoteError:
    """The remote's failure that this one stands for; ``operation`` (PutObject) goes into its reason."""
    reason = f"{operation}: {error.reason}" if operation else error.reason
    if isinstance(error, Insecure):
        return Unusable(reason, code=error.code, advice="check the certificate and the address")
    advice = "check endpoint and region" if error.code == "NameNotFound" else ""
    found = Transient(reason, code=error.code, advice=advice)
    found.undone = isinstance(error, Unreached)
    return found
