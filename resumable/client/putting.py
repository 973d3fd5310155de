"""A call of put: its entry is found in the state file, or made, and the source is sent on from there.

Invariants: an entry is compared with the source before a byte is sent; it stays in the state file until the server has
all bytes, and leaves it when they are known to be wrong. No I/O here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from resumable.client.client_transfer import ClientTransfer
from resumable.client.effects import CutShort, Exchange, Lost, Steps, Work
from resumable.client.events import StartedOver, Uploaded
from resumable.client.exceptions import ANEW, ClientError, DigestDiffers, NothingThere, SourceChanged
from resumable.client.patience import judged
from resumable.client.sending import SourceSending
from resumable.client.sources import SendSource
from resumable.client.speech import Speech, Standing, speech_of
from resumable.client.state_file import Leftover, StateFile, UploadEntry


def put_steps(
    transfer: ClientTransfer, source: SendSource, metadata: Mapping[str, str | bytes], fresh: bool
) -> Steps[Uploaded]:
    """Send this source, and close it in the end. Raises every ClientError but those of downloads."""
    state, claim = transfer.state, None
    key = StateFile.key(transfer.address, source.identity)
    try:
        claim = yield Work(lambda: state.claim(key, transfer.name))
        entry = yield from _entry(transfer, source, key, fresh)
        sending = SourceSending(transfer, source, entry, metadata)
        try:
            return (yield from sending.run())
        except DigestDiffers:
            yield Work(lambda: state.forget(key))
            raise
    finally:
        source.close()
        if claim is not None:
            claim.release()


def _entry(transfer: ClientTransfer, source: SendSource, key: str, fresh: bool) -> Steps[UploadEntry]:
    """The entry to go on with: that of the state file, if it is of this source as it is now, or a new one. Raises
    SourceChanged."""
    fingerprint = yield Work(source.fingerprint)
    found: UploadEntry | None = yield Work(lambda: transfer.state.find(key))
    if found is not None and not fresh and found.fingerprint == fingerprint:
        return found
    if found is not None:
        if not fresh and transfer.options.on_changed == "error":
            url = next(iter(found.urls), None)
            raise SourceChanged(
                f"{transfer.name} has changed since its upload was begun; {ANEW}",
                *(transfer.name, url),
            )
        why = "that was asked for" if fresh else "the source has changed"
        transfer.tell(StartedOver(source=transfer.name, reason=why))
        yield from discard(transfer, found)
    return UploadEntry(
        key=key,
        source=transfer.name,
        endpoint=transfer.address,
        protocol="",
        size=source.size,
        fingerprint=fingerprint,
    )


def discard(transfer: ClientTransfer, entry: UploadEntry) -> Steps[None]:
    """Forget an unfinished upload; the server is asked once to remove it, and otherwise lets it expire."""
    speech = speech_of(entry.protocol or "tus")
    for url in entry.urls:
        with suppress(Lost, CutShort, ClientError):
            yield from transfer.ask(Exchange(method="DELETE", url=url, fields=speech.asking()))
    yield Work(lambda: transfer.state.forget(entry.key))


def remove_steps(transfer: ClientTransfer, key: str) -> Steps[None]:
    """Remove an unfinished upload at the server, and forget it. Raises AlreadySending, TransferRefused, GaveUp."""
    state = transfer.state
    claim = yield Work(lambda: state.claim(key, transfer.name))
    try:
        entry: UploadEntry | None = yield Work(lambda: state.find(key))
        if entry is None:
            return
        for url in entry.urls:
            yield from transfer.patiently(lambda url=url: _delete(transfer, entry, url))  # type: ignore[misc]
        yield Work(lambda: state.forget(key))
    finally:
        claim.release()


def offset_steps(transfer: ClientTransfer, leftover: Leftover) -> Steps[int | None]:
    """How many bytes the server has of an unfinished upload; None: it has it no longer. Raises TransferRefused,
    GaveUp."""
    speech = speech_of(leftover.protocol or "tus")
    total = 0
    for url in (leftover.url,) if leftover.url is not None else leftover.urls:
        try:
            standing = yield from transfer.patiently(lambda url=url: _standing(transfer, speech, url))  # type: ignore[misc]
        except NothingThere:
            return None
        total += standing.offset
    return total


def _standing(transfer: ClientTransfer, speech: Speech, url: str) -> Steps[Standing]:
    reply, url = yield from transfer.ask(Exchange(method="HEAD", url=url, fields=speech.asking()))
    return speech.standing(judged(reply, url), None)


def _delete(transfer: ClientTransfer, entry: UploadEntry, url: str) -> Steps[None]:
    speech = speech_of(entry.protocol or "tus")
    reply, _ = yield from transfer.ask(Exchange(method="DELETE", url=url, fields=speech.asking()))
    if reply.status not in (404, 410):
        judged(reply, url)
