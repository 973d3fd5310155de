"""A client for resumable uploads: tus 1.0 and the IETF draft "Resumable Uploads for HTTP". See docs/client.md.

`Client` blocks, `AsyncClient` answers with Deferreds (and imports Twisted, which the rest doesn't). `exceptions` shows
the tree of exceptions, `events` what a transfer tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resumable.client.blocking import Client, get, put
from resumable.client.client_options import ClientOptions
from resumable.client.events import (
    Begun,
    Checked,
    Checking,
    Downloaded,
    Kept,
    Looked,
    Moved,
    Noted,
    PiecesShrunk,
    Received,
    Recovered,
    Replicated,
    Retried,
    Sent,
    StartedOver,
    Tiers,
    TransferEvent,
    Uploaded,
    Waiting,
)
from resumable.client.exceptions import (
    AlreadySending,
    BadOption,
    ClientError,
    DigestDiffers,
    GaveUp,
    NotAuthorised,
    NothingThere,
    NotResumable,
    NotTrusted,
    SizeRefused,
    SourceChanged,
    SourceError,
    SourceUnreadable,
    StateUnusable,
    TargetExists,
    TargetUnwritable,
    TransferCancelled,
    TransferRefused,
)
from resumable.client.state_file import Leftover, StateFile

if TYPE_CHECKING:
    from resumable.client.deferred import AsyncClient

__all__ = [
    "AlreadySending",
    "AsyncClient",
    "BadOption",
    "Begun",
    "Checked",
    "Checking",
    "Client",
    "ClientError",
    "ClientOptions",
    "DigestDiffers",
    "Downloaded",
    "GaveUp",
    "Kept",
    "Leftover",
    "Looked",
    "Moved",
    "NotAuthorised",
    "NotResumable",
    "NotTrusted",
    "Noted",
    "NothingThere",
    "PiecesShrunk",
    "Received",
    "Recovered",
    "Replicated",
    "Retried",
    "Sent",
    "SizeRefused",
    "SourceChanged",
    "SourceError",
    "SourceUnreadable",
    "StartedOver",
    "StateFile",
    "StateUnusable",
    "TargetExists",
    "TargetUnwritable",
    "Tiers",
    "TransferCancelled",
    "TransferEvent",
    "TransferRefused",
    "Uploaded",
    "Waiting",
    "get",
    "put",
]


def __getattr__(name: str) -> Any:
    """`AsyncClient`, which imports Twisted, only once it is asked for."""
    if name == "AsyncClient":
        from resumable.client.deferred import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
