"""The record of a replica in Cloud Storage, the properties of an object, and the store's description of one.

Invariant: whatever a client wrote into its metadata, the properties made of it are printable and stay within the 8 KiB
that the store allows; the upload's id is always among it.
Source: https://docs.cloud.google.com/storage/docs/json_api/v1/objects, https://docs.cloud.google.com/storage/quotas
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from resumable.remotes.errors import Transient
from resumable.remotes.interfaces import Plan, Stored
from resumable.remotes.journals import Stage, agreed_size
from resumable.remotes.metadata import ID_METADATA, PLAIN, MetadataRoom, described, fitting
from resumable.remotes.object_remote import ObjectRecord


def _closing(plan: Plan) -> Plan:
    """A session makes its object at once when it has as many bytes as it was told."""
    return evolve(plan, closing=True)


@frozen(kw_only=True)
class GcsRecord(ObjectRecord):
    """``confirmed``: bytes, up to the end of a part, that the store has; ``crc``: their CRC32C.

    A session is here only when the store has named it. Its URI is a secret: whoever has it may write, so it has no
    representation.
    """

    plan: Plan = field(converter=_closing)
    resource: dict[str, Any]
    session: str | None = field(default=None, repr=False)
    confirmed: int = 0
    crc: int = 0

    @property
    def begun(self) -> bool:
        """See `ObjectRecord.begun`."""
        return self.session is not None

    def sized(self, size: int | None) -> GcsRecord:
        """See `ObjectRecord.sized`."""
        return evolve(self, size=agreed_size(self.size, size, self.confirmed))

    def plainer(self) -> GcsRecord | None:
        """See `ObjectRecord.plainer`."""
        ours = {ID_METADATA: self.resource["metadata"][ID_METADATA]}
        if self.resource["metadata"] != ours:
            return evolve(self, resource={**self.resource, "metadata": ours})
        rest = {name: value for name, value in self.resource.items() if name != "contentDisposition"}
        rest["contentType"] = PLAIN
        return None if rest == self.resource else evolve(self, resource=rest)

    def finished(self, stored: Stored) -> GcsRecord:
        """See `ObjectRecord.finished`."""
        return evolve(super().finished(stored), session=None)

    def anew(self) -> GcsRecord:
        """Before anything was written."""
        return evolve(self, state=Stage.OPEN, session=None, confirmed=0, crc=0)


ROOM = MetadataRoom(8 << 10)


@frozen
class GcsObjectOptions:
    """``client_metadata``: whether the upload's metadata becomes the object's. ``acl``: a predefined one."""

    storage_class: str | None = None
    kms_key: str | None = None
    acl: str | None = None
    client_metadata: bool = True

    def query(self) -> list[tuple[str, str]]:
        """The URL parameters of requests that make objects."""
        named = {"kmsKeyName": self.kms_key, "predefinedAcl": self.acl}
        return [(name, value) for name, value in named.items() if value]

    def resource_for(self, upload_id: str, metadata: Mapping[str, bytes]) -> dict[str, Any]:
        """The object's properties, fit for the journal: no secrets are among them."""
        headers = described(metadata)
        resource: dict[str, Any] = {"contentType": headers["Content-Type"], "metadata": {ID_METADATA: upload_id}}
        if "Content-Disposition" in headers:
            resource["contentDisposition"] = headers["Content-Disposition"]
        if self.storage_class:
            resource["storageClass"] = self.storage_class
        if self.client_metadata:
            texts = {name: _text(value) for name, value in metadata.items()}
            resource["metadata"] |= fitting(texts, ROOM, resource["metadata"])
        return resource


def _text(value: bytes) -> str:
    """Text of bytes; bytes that aren't UTF-8 are read as Latin-1, which loses nothing."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return "".join(char if char.isprintable() else "?" for char in text).strip()


@frozen
class GcsObject:
    """An object in the bucket. ``crc32c`` is in base64."""

    key: str
    size: int
    generation: str
    etag: str | None
    crc32c: str | None
    metadata: Mapping[str, str]

    def is_of(self, upload_id: str, size: int | None) -> bool:
        """Whether it is this upload's, and whole."""
        return self.metadata.get(ID_METADATA) == upload_id and size in (None, self.size)

    def stored(self, bucket: str) -> Stored:
        """As others know it."""
        checksum = f"crc32c:{self.crc32c}" if self.crc32c else None
        return Stored(f"gs://{bucket}/{self.key}", self.key, self.size, self.etag, self.generation, checksum)


def object_from(operation: str, body: bytes) -> GcsObject:
    """The object that an answer describes. Raises Transient for an answer that describes none."""
    try:
        value = json.loads(body)
        metadata = {str(name): str(text) for name, text in (value.get("metadata") or {}).items()}
        return GcsObject(
            key=str(value["name"]),
            size=int(value["size"]),
            generation=str(value["generation"]),
            etag=value.get("etag"),
            crc32c=value.get("crc32c"),
            metadata=metadata,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Transient(f"{operation}: the answer describes no object") from None


def encoded(crc: int) -> str:
    """A CRC32C as the store writes it: base64 of its bytes, the highest first."""
    return b64encode(crc.to_bytes(4, "big")).decode()
