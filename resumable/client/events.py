"""What a transfer tells while it goes on, and what it answers in the end. Sizes in bytes, times in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from attrs import asdict, frozen


@frozen(kw_only=True)
class TransferEvent:
    """``source``: what is sent or received, by its name."""

    source: str

    @property
    def name(self) -> str:
        """The kind of event, in lower case."""
        return type(self).__name__.lower()

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON can say them, and ``event``."""
        return {"event": self.name, **asdict(self)}


@frozen(kw_only=True)
class Begun(TransferEvent):
    """The server knows the upload, and has ``offset`` bytes. ``total`` None: the length isn't known."""

    url: str
    offset: int
    total: int | None
    resumed: bool
    protocol: str


@frozen(kw_only=True)
class Moved(TransferEvent):
    """``sent``: the position of what the network has taken; ``acknowledged``: of what the server has; ``run``: bytes
    of this run, which is what a speed counts."""

    sent: int
    acknowledged: int
    total: int | None
    run: int


@frozen(kw_only=True)
class Retried(TransferEvent):
    """Something went wrong; the next try comes in ``wait`` seconds."""

    reason: str
    attempt: int
    wait: float
    gives_up_in: float


@frozen(kw_only=True)
class Recovered(TransferEvent):
    """There is contact again, and the transfer goes on at ``offset``."""

    offset: int


@frozen(kw_only=True)
class StartedOver(TransferEvent):
    """The upload begins anew."""

    reason: str


@frozen(kw_only=True)
class PiecesShrunk(TransferEvent):
    """Something on the way refuses long requests: they have ``size`` bytes at most from now on."""

    size: int


@frozen(kw_only=True)
class Waiting(TransferEvent):
    """Nothing may be sent for ``wait`` seconds."""

    wait: float
    reason: str


@frozen(kw_only=True)
class Replicated:
    """The copy in one remote. ``name`` is told to operators only."""

    name: str | None
    required: bool
    state: str
    sent: int
    confirmed: int
    trouble: str | None


@frozen(kw_only=True)
class Tiers:
    """Both tiers, as the server's status resource tells them. ``state``: "uploading", "finished", "stored" or other."""

    state: str
    length: int | None
    received: int
    durable: int
    replicas: tuple[Replicated, ...]
    digest: str | None

    @classmethod
    def read(cls, document: Any) -> Self | None:
        """The status document; None: it is something else."""
        try:
            return cls(
                state=str(document["state"]),
                length=document["length"],
                received=int(document["received"]),
                durable=int(document["durable"]),
                replicas=tuple(map(_replicated, document.get("replicas", ()))),
                digest=document.get("digest"),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def _replicated(one: dict[str, Any]) -> Replicated:
    return Replicated(
        name=one.get("remote") or one.get("name"),
        required=bool(one.get("required", True)),
        state=str(one["state"]),
        sent=int(one.get("sent") or 0),
        confirmed=int(one.get("confirmed") or 0),
        trouble=one.get("trouble"),
    )


@frozen(kw_only=True)
class Looked(TransferEvent):
    """A look at the status resource."""

    tiers: Tiers


@frozen(kw_only=True)
class Sent(TransferEvent):
    """The server has all bytes."""

    url: str
    size: int


@frozen(kw_only=True)
class Checking(TransferEvent):
    """The digest of our own bytes is computed."""

    done: int
    total: int


@frozen(kw_only=True)
class Checked(TransferEvent):
    """Our digest is the server's."""

    digest: str


@frozen(kw_only=True)
class Kept(TransferEvent):
    """Every required remote has the upload."""

    url: str


@frozen(kw_only=True)
class Noted(TransferEvent):
    """Something to know, in words."""

    message: str


@frozen(kw_only=True)
class Received(TransferEvent):
    """The progress of a download."""

    received: int
    total: int | None
    run: int


@frozen(kw_only=True)
class Uploaded:
    """An upload that the server has. ``sent``: bytes of this run; ``digest``: the server's, as in Repr-Digest;
    ``checked``: it is that of our bytes; ``stored``: None where it isn't known."""

    url: str
    size: int
    sent: int
    resumed_from: int
    seconds: float
    protocol: str
    digest: str | None
    checked: bool
    stored: bool | None


@frozen(kw_only=True)
class Downloaded:
    """A file that is here. ``received``: bytes of this run."""

    url: str
    path: Path
    size: int
    received: int
    resumed_from: int
    seconds: float
    digest: str | None
    checked: bool
