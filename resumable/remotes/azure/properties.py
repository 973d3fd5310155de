"""What a blob is given beside its bytes.

One reason to change: a property of blobs that operators may set, or that comes from an upload's metadata. Pure.

Invariant: whatever a client wrote into its metadata, what is made of it is ASCII and fits into what Azure takes; the
upload's id is always among it.
Source: https://learn.microsoft.com/rest/api/storageservices/setting-and-retrieving-properties-and-metadata-for-blob-resources
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen

from resumable.remotes.metadata import PLAIN, Room, described, in_ascii
from resumable.remotes.plainer import stripped

ID_METADATA = "resumable_upload_id"
DROPPED_METADATA = "resumable_dropped"
"""On an empty blob that only exists to get rid of blocks, until it is deleted."""
ROOM = Room(8 << 10)
CUSTOM = "meta:"


@frozen
class BlobOptions:
    """``tier`` and ``encryption_scope``: None leaves them to the account."""

    tier: str | None = None
    encryption_scope: str | None = None


def properties_for(upload_id: str, metadata: Mapping[str, bytes], client_metadata: bool) -> dict[str, str]:
    """Content-Type, Content-Disposition and, by their names with ``meta:`` before, what goes into the metadata.

    Names become identifiers, as Azure wants them; one that begins with a digit is a byte longer then.
    """
    properties = described(metadata)
    ours = {ID_METADATA: upload_id}
    for name, value in in_ascii(metadata, ROOM, ours).items() if client_metadata else ():
        plain = re.sub(r"[^a-z0-9_]", "_", name)
        plain = f"_{plain}" if plain[0].isdigit() else plain
        if value and not plain.startswith("resumable_"):
            properties.setdefault(f"{CUSTOM}{plain}", value)
    properties[f"{CUSTOM}{ID_METADATA}"] = upload_id
    return properties


def plainer(properties: Mapping[str, str]) -> dict[str, str] | None:
    """See `resumable.remotes.plainer.Plain`."""
    return stripped(properties, CUSTOM, f"{CUSTOM}{ID_METADATA}", {"Content-Type": PLAIN})


def metadata_of(properties: Mapping[str, str]) -> dict[str, str]:
    """The part that goes into the blob's metadata."""
    return {name.removeprefix(CUSTOM): value for name, value in properties.items() if name.startswith(CUSTOM)}
