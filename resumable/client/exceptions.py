"""What can go wrong with a transfer, in words that say what to do.

* ClientError
  + BadOption
  + TransferRefused
    - NotAuthorised
    - NothingThere
    - SizeRefused
  + NotResumable
  + NotTrusted
  + GaveUp
  + SourceError
    - SourceUnreadable
    - SourceChanged
  + DigestDiffers
  + AlreadySending
  + StateUnusable
  + TargetExists
  + TargetUnwritable
  + TransferCancelled
"""

from __future__ import annotations

ANEW = "fresh=True sends it anew and removes what was begun"


class ClientError(Exception):
    """A transfer has ended without its aim. Its text is one line for people."""


class BadOption(ClientError):
    """An option or an address that can't be. Nothing was sent."""


class TransferRefused(ClientError):
    """The server's final answer to a request. ``title`` and ``detail`` are those of its problem document (RFC 9457)."""

    def __init__(self, status: int, title: str, detail: str, url: str) -> None:
        self.status, self.title, self.detail, self.url = status, title, detail, url
        said = detail or title or "it gives no reason"
        super().__init__(f"{url} answers {status}: {said}")


class NotAuthorised(TransferRefused):
    """401 or 403: no token or password, or one without the right."""


class NothingThere(TransferRefused):
    """404 or 410: nothing is at this address."""


class SizeRefused(TransferRefused):
    """413 of the server itself: the upload is larger than it takes."""


class NotResumable(ClientError):
    """The address speaks neither tus nor the draft, or not the one that was asked for."""


class NotTrusted(ClientError):
    """The server's certificate can't be verified, or what is there doesn't speak TLS."""


class GaveUp(ClientError):
    """The time for retries is over. ``reason``: the last trouble in words; ``begun``: whether there is something to go
    on with."""

    def __init__(self, reason: str, attempts: int, begun: bool = True) -> None:
        self.reason, self.attempts, self.begun = reason, attempts, begun
        tries = "1 try" if attempts == 1 else f"{attempts} tries"
        goes_on = ": the same call goes on where it ended" if begun else ""
        super().__init__(f"{reason}; gave up after {tries}{goes_on}")


class SourceError(ClientError):
    """Something is wrong with what is to be sent."""


class SourceUnreadable(SourceError):
    """It is missing, no file, or may not be read."""


class SourceChanged(SourceError):
    """It isn't what was begun to be sent. ``url``: the upload at the server, which has the first ``offset`` bytes."""

    def __init__(self, text: str, name: str, url: str | None = None, offset: int | None = None) -> None:
        self.name, self.url, self.offset = name, url, offset
        super().__init__(text)


def has_changed(name: str, url: str | None = None, offset: int | None = None) -> SourceChanged:
    """That of a source which has changed before its upload was finished."""
    return SourceChanged(f"{name} has changed while it was sent; {ANEW}", name, url, offset)


class DigestDiffers(ClientError):
    """The server has other bytes. ``ours`` and ``theirs`` are texts of Repr-Digest; ``theirs`` None: it didn't say."""

    def __init__(
        self,
        name: str,
        url: str,
        ours: str,
        theirs: str | None,
        advice: str = "remove that upload, and send the file again",
    ) -> None:
        self.name, self.url, self.ours, self.theirs = name, url, ours, theirs
        digests = f"{theirs or 'not told'}, ours is {ours}"
        super().__init__(f"{name}: the bytes at {url} have another digest ({digests}): {advice}")


class AlreadySending(ClientError):
    """Another transfer of the same source to the same endpoint is under way."""


class StateUnusable(ClientError):
    """The state file can't be read or written."""


class TargetExists(ClientError):
    """The file that a download would make is there already."""


class TargetUnwritable(ClientError):
    """A download can't be written."""


class TransferCancelled(ClientError):
    """`cancel` was called. What the server has stays, and the same call goes on there."""
