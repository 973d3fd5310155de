"""What each store that speaks S3 supports, as named settings.

One reason to change: a store that differs, or learns something. Invariant: no other module tells stores apart.
Sources: the stores' own compatibility pages; where they don't say, the cautious value stands here.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve, frozen

from resumable.remotes.plan import S3, S3_50TB, TIB, Limits


@frozen
class Dialect:
    """How one kind of store is spoken to.

    ``checksum``: ``crc32c``, ``crc64nvme``, ``md5`` (as Content-MD5) or ``none``. ``full_object``: the store combines
    the parts' checksums into that of the whole object (else it has a checksum of checksums). ``size_at_complete``:
    it compares ``x-amz-mp-object-size``. ``put_if_absent`` and ``complete_if_absent``: ``If-None-Match: *`` is heeded
    on PutObject and on CompleteMultipartUpload. ``path_style``: the bucket stands in the path, not in the host name.
    ``fixed_region``: what requests are signed with when no region is set.
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
)

#: Full-object checksums came to MinIO in 2025 only; those of parts are older.
MINIO = Dialect("minio", checksum="crc32c", put_if_absent=True, complete_if_absent=True)

#: https://developers.cloudflare.com/r2/api/s3/api/: all parts but the last have the same size.
R2 = Dialect(
    "r2",
    limits=Limits(largest_object=5 * TIB - 5 * (1 << 30), equal=True),
    put_if_absent=True,
    fixed_region="auto",
)

#: Rejects x-amz-checksum-*; has no conditional writes.
BACKBLAZE = Dialect("backblaze")

CEPH = Dialect("ceph", put_if_absent=True)

#: The XML API of Google Cloud Storage with HMAC keys; conditions go by generation there.
GCS_INTEROP = Dialect("gcs-interop", fixed_region="auto")

DIALECTS = {each.name: each for each in (GENERIC, AWS, MINIO, R2, BACKBLAZE, CEPH, GCS_INTEROP)}


def dialect(name: str, **changes: Any) -> Dialect:
    """The dialect of that name, with single settings changed. Raises ValueError for a name that isn't known."""
    try:
        known = DIALECTS[name]
    except KeyError:
        raise ValueError(f"no S3 dialect {name!r}; there are {', '.join(DIALECTS)}") from None
    return evolve(known, **changes)
