"""What an object is given beside its bytes.

One reason to change: a property of objects that operators may set, or that comes from an upload's metadata.

Invariant: whatever a client wrote into its metadata, the headers made of it are ASCII, have no line breaks and stay
within what the store is known to allow; the upload's id is always among them. The key of SSE-C has no representation.
Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from attrs import field, frozen

from resumable.remotes.metadata import ID_METADATA, PLAIN, Room, described, in_ascii
from resumable.remotes.plainer import stripped

CUSTOM = "x-amz-meta-"
SSE_C = "x-amz-server-side-encryption-customer-"


@frozen
class ObjectOptions:
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

    def headers_for(self, upload_id: str, metadata: Mapping[str, bytes], room: Room) -> dict[str, str]:
        """What comes from the upload itself; secrets aren't among it, it goes to the journal."""
        ours = {ID_METADATA: upload_id}
        custom = {**ours, **(in_ascii(metadata, room, ours) if self.client_metadata else {})}
        return {**described(metadata), **{f"{CUSTOM}{name}": value for name, value in custom.items()}}


def plainer(headers: Mapping[str, str]) -> dict[str, str] | None:
    """See `resumable.remotes.plainer.Plain`."""
    return stripped(headers, CUSTOM, f"{CUSTOM}{ID_METADATA}", {"Content-Type": PLAIN})
