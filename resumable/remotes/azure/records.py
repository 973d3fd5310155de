"""The record of a replica in Azure, a blob's properties, the names of blocks, and the kinds of credentials.

Invariant: whatever a client wrote into its metadata, the properties made of it are ASCII and fit into the room that
Azure gives; the upload's id is always among it. A block's name says the upload, the offset and the size, so it stands
for the same bytes for ever, whatever was staged, aborted or planned before; all names have the same length, as the
store demands, and at most its 64 bytes.
Sources: https://learn.microsoft.com/rest/api/storageservices/setting-and-retrieving-properties-and-metadata-for-blob-resources
and https://learn.microsoft.com/rest/api/storageservices/put-block (block ids, 100,000 uncommitted blocks)
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable, Mapping

from attrs import evolve, field, frozen

from resumable.remotes.interfaces import Stored
from resumable.remotes.metadata import PLAIN, MetadataRoom, described, in_ascii, stripped
from resumable.remotes.object_remote import ObjectRecord
from resumable.remotes.plan import MIB, TIB, Part, PartLimits, Plan


class Auth(enum.Enum):
    """Kinds of credentials."""

    CONNECTION_STRING = "connection-string"
    KEY = "key"
    SAS = "sas"
    IDENTITY = "identity"


#: In the order in which they are looked for.
FILES = {Auth.CONNECTION_STRING: "connection-string-file", Auth.KEY: "key-file", Auth.SAS: "sas-file"}
VARIABLES = {
    Auth.CONNECTION_STRING: "AZURE_STORAGE_CONNECTION_STRING",
    Auth.KEY: "AZURE_STORAGE_KEY",
    Auth.SAS: "AZURE_STORAGE_SAS_TOKEN",
}


class Blocks(enum.Enum):
    """NONE: no block was asked for. ASKED: there may be some. THERE: one at least was confirmed."""

    NONE = "none"
    ASKED = "asked"
    THERE = "there"


@frozen(kw_only=True)
class AzureRecord(ObjectRecord):
    """PLACING: a Put Block List may have happened. ``properties``: see `properties_for`.

    Blocks aren't counted here: the store lists them, by names that describe their bytes.
    """

    properties: dict[str, str]
    blocks: Blocks = field(default=Blocks.NONE, converter=Blocks)

    @property
    def begun(self) -> bool:
        """See `ObjectRecord.begun`."""
        return self.blocks is not Blocks.NONE

    def plainer(self) -> AzureRecord | None:
        """See `ObjectRecord.plainer`."""
        left = stripped(self.properties, CUSTOM, f"{CUSTOM}{ID_METADATA}", {"Content-Type": PLAIN})
        return None if left is None else evolve(self, properties=left)

    def finished(self, stored: Stored) -> AzureRecord:
        """See `ObjectRecord.finished`."""
        return evolve(super().finished(stored), blocks=Blocks.NONE)


ID_METADATA = "resumable_upload_id"
TOKEN_METADATA = "resumable_token"
DROPPED_METADATA = "resumable_dropped"
"""On an empty blob that only exists to get rid of blocks, until it is deleted."""
ROOM = MetadataRoom(8 << 10)
CUSTOM = "meta:"


@frozen
class BlobOptions:
    """``tier`` and ``encryption_scope``: None leaves them to the account."""

    tier: str | None = None
    encryption_scope: str | None = None


def properties_for(upload_id: str, metadata: Mapping[str, bytes], client_metadata: bool) -> dict[str, str]:
    """Content-Type, Content-Disposition and, by their names with ``meta:`` before, the entries of the metadata.

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


def metadata_of(properties: Mapping[str, str]) -> dict[str, str]:
    """The part that goes into the blob's metadata."""
    return {name.removeprefix(CUSTOM): value for name, value in properties.items() if name.startswith(CUSTOM)}


LIMITS = PartLimits(smallest_part=1, largest_part=4000 * MIB, parts=50_000, largest_object=50_000 * 4000 * MIB)
"""https://learn.microsoft.com/azure/storage/blobs/scalability-targets"""

UNKNOWN_LENGTH = 100 * TIB
"""The length that an upload of unknown length is planned for. For the whole 190 TiB its parts would be of 4000 MiB
soon."""

OWNER = 32
WIDTH = OWNER + 1 + 15 + 1 + 10


def owner(upload_id: str) -> str:
    """32 characters that stand for the upload: its id where that is short enough, else a digest of it."""
    if len(upload_id) <= OWNER and upload_id.isascii():
        return upload_id.ljust(OWNER, "~")
    return "#" + hashlib.blake2b(upload_id.encode(), digest_size=16).hexdigest()[1:]


def block_name(upload_id: str, part: Part) -> str:
    """The name of the block that holds this part."""
    return f"{owner(upload_id)}-{part.offset:015d}-{part.size:010d}"


def is_of(name: str, upload_id: str) -> bool:
    """Whether that block is the upload's."""
    return len(name) == WIDTH and name.startswith(f"{owner(upload_id)}-")


def parts_among(names: Iterable[str], upload_id: str, plan: Plan, length: int | None) -> list[Part]:
    """The parts of the plan that have their blocks among these, in order."""
    found = set()
    for name in names:
        digits = name[OWNER + 1 : OWNER + 16]
        if is_of(name, upload_id) and digits.isdecimal():
            try:
                part = plan.part_at(int(digits), length)
            except ValueError:
                continue
            if block_name(upload_id, part) == name:
                found.add(part)
    return sorted(found, key=lambda part: part.number)
