"""What each store that speaks S3 supports, as named settings.

One reason to change: a store that differs, or learns something. Invariant: no other module tells stores apart.
Sources: the stores' own compatibility pages, named below; where they don't say, the cautious value stands here.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve, frozen

from resumable.remotes.metadata import Room
from resumable.remotes.plan import S3, S3_50TB, TIB, Limits

PREFIX = len("x-amz-meta-")
CAUTIOUS = Room(2048, each=PREFIX)


@frozen
class Dialect:
    """How one kind of store is spoken to.

    ``checksum``: ``crc32c``, ``crc64nvme``, ``md5`` (as Content-MD5) or ``none``. ``full_object``: the store combines
    the parts' checksums into that of the whole object (else it has a checksum of checksums). ``size_at_complete``:
    it compares ``x-amz-mp-object-size``. ``put_if_absent`` and ``complete_if_absent``: ``If-None-Match: *`` is heeded
    on PutObject and on CompleteMultipartUpload. ``path_style``: the bucket stands in the path, not in the host name.
    ``fixed_region``: what requests are signed with when no region is set. ``metadata``: how much of it an object may
    have; S3's 2 KB, with the names as they are sent, where nobody says more. A store that takes less refuses, and gets
    the object without (`resumable.remotes.plainer`).
    """

    name: str
    limits: Limits = S3
    checksum: str = "md5"
    full_object: bool = False
    size_at_complete: bool = False
    put_if_absent: bool = False
    complete_if_absent: bool = False
    path_style: bool = True
    fixed_region: str = "us-east-1"
    metadata: Room = CAUTIOUS


GENERIC = Dialect("generic")

AWS = Dialect(
    "aws",
    limits=S3_50TB,
    checksum="crc32c",
    full_object=True,
    size_at_complete=True,
    put_if_absent=True,
    complete_if_absent=True,
    path_style=False,
    metadata=Room(2048),
)

#: Conditions: https://github.com/minio/minio/pull/16551. Checksums of whole objects came in 2025
#: (https://github.com/minio/minio/issues/20944) and fail here and there (https://github.com/pgsty/silo/issues/31);
#: those of parts are older.
MINIO = Dialect("minio", checksum="crc32c", put_if_absent=True, complete_if_absent=True)

#: https://developers.cloudflare.com/r2/api/s3/api/: all parts but the last have the same size, objects have just under
#: 5 TiB, the region is "auto". https://developers.cloudflare.com/r2/api/s3/conditional-operations/: PutObject and
#: CompleteMultipartUpload heed If-None-Match.
R2 = Dialect(
    "r2",
    limits=Limits(largest_object=5 * TIB - 5 * (1 << 30), equal=True),
    put_if_absent=True,
    complete_if_absent=True,
    fixed_region="auto",
    metadata=Room(8192, each=PREFIX),
)

#: https://www.backblaze.com/docs/cloud-storage-s3-compatible-api: x-amz-checksum-* is refused as an unsupported header
#: (https://github.com/iterate-ch/cyberduck/issues/16107), a conditional PutObject as not implemented
#: (https://github.com/lance-format/lance/issues/5614).
BACKBLAZE = Dialect("backblaze", metadata=Room(2048, entries=10, each=PREFIX))

#: What releases in use have in common. If-None-Match on PutObject is old (https://github.com/ceph/s3-tests/issues/218)
#: yet reported as ignored (https://github.com/open-rails/contentkit/releases/tag/v0.58.1); on CompleteMultipartUpload
#: it came in 2025 (https://github.com/ceph/ceph/pull/64830), as did CRC64NVME (https://github.com/ceph/ceph/pull/61878).
CEPH = Dialect("ceph")

#: The XML API of Google Cloud Storage with HMAC keys. https://cloud.google.com/storage/docs/multipart-uploads:
#: completing replaces what is there, and preconditions don't go with it; else they go by generation. Content-MD5 is
#: compared (https://cloud.google.com/storage/docs/xml-api/put-object-multipart).
GCS_INTEROP = Dialect("gcs-interop", fixed_region="auto", metadata=Room(8192, each=PREFIX))

DIALECTS = {each.name: each for each in (GENERIC, AWS, MINIO, R2, BACKBLAZE, CEPH, GCS_INTEROP)}


#: The hosts that belong to a store's maker; all others may be anything.
HOSTS = {
    "amazonaws.com": AWS,
    "amazonaws.com.cn": AWS,
    "r2.cloudflarestorage.com": R2,
    "backblazeb2.com": BACKBLAZE,
    "storage.googleapis.com": GCS_INTEROP,
}


def dialect_of_host(host: str) -> Dialect:
    """The dialect of the store that owns the host; GENERIC where that isn't known."""
    return next((each for name, each in HOSTS.items() if host == name or host.endswith(f".{name}")), GENERIC)


def dialect(name: str, **changes: Any) -> Dialect:
    """The dialect of that name, with single settings changed. Raises ValueError for a name that isn't known."""
    try:
        known = DIALECTS[name]
    except KeyError:
        raise ValueError(f"no S3 dialect {name!r}; there are {', '.join(DIALECTS)}") from None
    return evolve(known, **changes)
