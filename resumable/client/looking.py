"""Looks at an upload after and beside its sending: the status of both tiers, and the server's digest."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Final

from resumable.client.client_transfer import PACE, ClientTransfer
from resumable.client.effects import Exchange, HttpReply, Lost, Pause, Steps, Work
from resumable.client.events import Checked, Checking, Kept, Looked, Noted, Tiers
from resumable.client.exceptions import ClientError, DigestDiffers, TransferRefused
from resumable.client.patience import judged
from resumable.client.sources import HASHES, SendSource
from resumable.client.speech import Speech

BETWEEN: Final = 1.0
"""Seconds between two looks, unless something else was asked for."""
WANTED: Final = ("Want-Repr-Digest", "sha-256=10, sha-512=5")
_DIGEST: Final = re.compile(r"(?:^|,)\s*(sha-256|sha-512)=:([A-Za-z0-9+/=]+):")


def look(transfer: ClientTransfer, url: str) -> Steps[Tiers | None]:
    """The status; None: the server has no such resource. Raises Lost and TransferRefused."""
    reply, _ = yield from transfer.ask(
        Exchange(method="GET", url=f"{url}/status", fields=[("Accept", "application/json")])
    )
    if reply.status in (404, 405, 410, 501):
        return None
    try:
        return Tiers.read(json.loads(judged(reply, url).body))
    except (ValueError, RecursionError):
        return None


def watch(transfer: ClientTransfer, url: Callable[[], str | None]) -> Steps[None]:
    """Tell of both tiers, until it is ended or the server has no such resource."""
    between = transfer.options.poll_status or BETWEEN
    while True:
        yield Pause(between)
        where = url()
        if where is None:
            continue
        try:
            tiers = yield from look(transfer, where)
        except (Lost, ClientError):
            continue  # the upload itself tells of trouble
        if tiers is None:
            return
        transfer.tell(Looked(source=transfer.name, tiers=tiers))


def until_stored(transfer: ClientTransfer, url: str) -> Steps[bool | None]:
    """Wait until every required remote has it. None: there are no remotes, or the server doesn't tell; False: a remote
    has failed, and it is up to the server's operator."""
    patience = transfer.patience()
    while True:
        try:
            tiers = yield from look(transfer, url)
        except Lost as trouble:
            yield from patience.after(trouble)
            continue
        if tiers is None:
            transfer.tell(Noted(source=transfer.name, message="the server doesn't tell when it has stored an upload"))
            return None
        patience.moved()
        transfer.tell(Looked(source=transfer.name, tiers=tiers))
        if tiers.state == "stored":
            transfer.tell(Kept(source=transfer.name, url=url))
            return True
        required = [each for each in tiers.replicas if each.required]
        if not required and tiers.state == "finished":
            return None
        if any(each.trouble == "failed" for each in required):
            transfer.tell(Noted(source=transfer.name, message="a remote of the server has failed: ask its operator"))
            return False
        yield Pause(transfer.options.poll_status or BETWEEN)


def verified(
    transfer: ClientTransfer, source: SendSource, url: str, speech: Speech, known: Mapping[str, bytes]
) -> Steps[tuple[str | None, bool]]:
    """The server's digest, and whether it was compared with ours; ``known``: those of ours that are computed already.
    Raises DigestDiffers."""
    theirs = yield from _of_server(transfer, url, speech)
    if not theirs:
        transfer.tell(Noted(source=transfer.name, message="the server tells no digest: the bytes weren't compared"))
        return None, False
    ours = {name: digest for name, digest in known.items() if name in theirs}
    if not ours:
        ours = yield from digests(transfer, source, list(theirs)[:1])
    if not ours:
        return digest_text(theirs), False
    for name, digest in ours.items():
        if digest != theirs[name]:
            raise DigestDiffers(transfer.name, url, digest_text({name: digest}), digest_text({name: theirs[name]}))
    text = digest_text(theirs)
    transfer.tell(Checked(source=transfer.name, digest=text))
    return text, True


def digests(transfer: ClientTransfer, source: SendSource, algorithms: list[str]) -> Steps[dict[str, bytes]]:
    """Of our own bytes."""
    total, last = source.size or 0, transfer.around.now()

    def told(done: int) -> None:
        nonlocal last
        if (now := transfer.around.now()) - last >= PACE:
            last = now
            transfer.tell(Checking(source=transfer.name, done=done, total=total))

    found: dict[str, bytes] = yield Work(lambda: source.digests(algorithms, told), source.close)
    return found


def _of_server(transfer: ClientTransfer, url: str, speech: Speech) -> Steps[dict[str, bytes]]:
    try:
        reply, _ = yield from transfer.patiently(lambda: _asked(transfer, url, speech))
    except TransferRefused:
        return {}
    return told_digests(reply)


def _asked(transfer: ClientTransfer, url: str, speech: Speech) -> Steps[tuple[HttpReply, str]]:
    reply, url = yield from transfer.ask(Exchange(method="HEAD", url=url, fields=[*speech.asking(), WANTED]))
    return judged(reply, url), url


def told_digests(reply: HttpReply) -> dict[str, bytes]:
    """Those in Repr-Digest (RFC 9530) that are known here, the best first."""
    found = {}
    for name, value in _DIGEST.findall(reply.get("repr-digest") or ""):
        try:
            found[name] = b64decode(value, validate=True)
        except ValueError:
            continue
    return {name: found[name] for name in HASHES if name in found}


def digest_text(found: Mapping[str, bytes]) -> str:
    """As in Repr-Digest."""
    return ", ".join(f"{name}=:{b64encode(value).decode()}:" for name, value in found.items())
