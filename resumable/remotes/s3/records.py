"""The record of a replica in S3, and the properties of its object.

Invariant: whatever a client wrote into its metadata, the headers made of it are ASCII, have no line breaks and stay
within what the store is known to allow; the upload's id is always among them. The key of SSE-C has no representation.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from attrs import evolve, field, frozen

from resumable.remotes.interfaces import IJournal, IPartJournal, Stored
from resumable.remotes.journals import ReplicaRecords, Stage
from resumable.remotes.metadata import ID_METADATA, PLAIN, TOKEN_METADATA, MetadataRoom, described, in_ascii, stripped
from resumable.remotes.object_remote import ObjectRecord
from resumable.remotes.s3.answers import ListedPart


@frozen(kw_only=True)
class S3Record(ObjectRecord):
    """PLACING: a CompleteMultipartUpload may have happened. The checksum's algorithm never changes, headers only where
    the store refuses them.

    ``multipart``: the store's upload id; empty: it was asked for, the answer isn't known; None: it was not.
    ``headers`` come from the upload's metadata. ``parts`` is used only with a journal that has no place for parts.
    """

    headers: dict[str, str]
    checksum: str
    full_object: bool
    multipart: str | None = None
    parts: dict[str, str] = field(factory=dict)

    @property
    def begun(self) -> bool:
        """See `ObjectRecord.begun`."""
        return self.multipart is not None

    @property
    def has_parts(self) -> bool:
        """See `ObjectRecord.has_parts`."""
        return bool(self.multipart)

    def plainer(self) -> S3Record | None:
        """See `ObjectRecord.plainer`."""
        headers = stripped(self.headers, CUSTOM, f"{CUSTOM}{ID_METADATA}", {"Content-Type": PLAIN})
        return None if headers is None else evolve(self, headers=headers)

    def over(self) -> S3Record:
        """See `ObjectRecord.over`."""
        return evolve(super().over(), parts={})

    def finished(self, stored: Stored) -> S3Record:
        """See `ObjectRecord.finished`."""
        done = super().finished(stored)
        return evolve(done, parts={}) if done.parts else done

    def without_multipart(self) -> S3Record:
        """Before anything was written."""
        return evolve(self, state=Stage.OPEN, multipart=None, parts={})


class S3Records(ReplicaRecords[S3Record]):
    """The records in a journal, and those of each part."""

    def __init__(self, journal: IJournal) -> None:
        super().__init__(S3Record, journal)
        self._part_journal = journal if IPartJournal.providedBy(journal) else None

    async def save_part(self, upload_id: str, multipart: str, part: ListedPart) -> None:
        """Remember the parts that the store has confirmed for this multipart."""
        value = json.dumps([part.size, part.etag, part.checksum, multipart], separators=(",", ":"))
        if self._part_journal is not None:
            await self._part_journal.save_part(upload_id, part.number, value)
            return

        async def add() -> None:
            record = await self.started(upload_id)
            await self.save(upload_id, evolve(record, parts={**record.parts, str(part.number): value}))

        await self.alone(upload_id, add)

    async def parts(self, upload_id: str, record: S3Record) -> dict[int, ListedPart]:
        """The records of the parts of this multipart."""
        found: dict[int, str] = {int(number): value for number, value in record.parts.items()}
        if self._part_journal is not None:
            found = await self._part_journal.load_parts(upload_id)
        known = {}
        for number, value in found.items():
            size, etag, checksum, multipart = json.loads(value)
            if multipart == record.multipart:
                known[number] = ListedPart(number, size, etag, checksum)
        return known

    async def drop_parts(self, upload_id: str) -> None:
        """Forget them, where they aren't in the record."""
        if self._part_journal is not None:
            await self._part_journal.drop_parts(upload_id)


CUSTOM = "x-amz-meta-"
SSE_C = "x-amz-server-side-encryption-customer-"


@frozen
class S3ObjectOptions:
    """``encryption``: ``AES256``, ``aws:kms``, ``aws:kms:dsse`` or None. ``customer_key``: 32 bytes for SSE-C.

    ``client_metadata``: whether the upload's metadata becomes the object's.
    """

    storage_class: str | None = None
    acl: str | None = None
    encryption: str | None = None
    kms_key: str | None = None
    customer_key: bytes | None = field(default=None, repr=False)
    tags: Mapping[str, str] = field(factory=dict)
    client_metadata: bool = True

    def __attrs_post_init__(self) -> None:
        if self.customer_key is not None and (len(self.customer_key) != 32 or self.encryption):
            raise ValueError("a customer's key has 32 bytes and goes with no other encryption")
        if self.kms_key and not (self.encryption or "").startswith("aws:kms"):
            raise ValueError("a KMS key needs the encryption aws:kms")

    def access_headers(self) -> dict[str, str]:
        """Those that each request for the object's bytes or properties needs."""
        if self.customer_key is None:
            return {}
        digest = hashlib.md5(self.customer_key, usedforsecurity=False).digest()
        return {
            f"{SSE_C}algorithm": "AES256",
            f"{SSE_C}key": b64encode(self.customer_key).decode(),
            f"{SSE_C}key-md5": b64encode(digest).decode(),
        }

    def source_headers(self) -> dict[str, str]:
        """Those that a copy needs for its source, which has the same key."""
        copied = SSE_C.replace("x-amz-", "x-amz-copy-source-", 1)
        return {name.replace(SSE_C, copied): value for name, value in self.access_headers().items()}

    def creation_headers(self) -> dict[str, str]:
        """Those that PutObject and CreateMultipartUpload need."""
        named = {
            "x-amz-storage-class": self.storage_class,
            "x-amz-acl": self.acl,
            "x-amz-server-side-encryption": self.encryption,
            "x-amz-server-side-encryption-aws-kms-key-id": self.kms_key,
            "x-amz-tagging": urlencode(self.tags, quote_via=quote) or None,
        }
        return {**{name: value for name, value in named.items() if value}, **self.access_headers()}

    def headers_for(
        self, upload_id: str, metadata: Mapping[str, bytes], room: MetadataRoom, token: str = ""
    ) -> dict[str, str]:
        """The headers that come from the upload itself; they go to the journal, so none is secret. ``token``: that of
        whoever makes an object of a spool."""
        ours = {ID_METADATA: upload_id, **({TOKEN_METADATA: token} if token else {})}
        custom = {**ours, **(in_ascii(metadata, room, ours) if self.client_metadata else {})}
        return {**described(metadata), **{f"{CUSTOM}{name}": value for name, value in custom.items()}}
