"""The abilities of each store that speaks S3, as named settings, and the address of a bucket.

Invariant: no other module tells stores apart. An `Endpoint` is complete: nothing about the address is decided later.
Sources: https://docs.aws.amazon.com/general/latest/gr/s3.html and the stores' own compatibility pages, named below;
where they don't say, the cautious value stands here.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve, frozen
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader

from resumable.masking import has_user
from resumable.remotes.metadata import MetadataRoom
from resumable.remotes.plan import S3, S3_50TB, TIB, PartLimits
from resumable.remotes.s3.signing import encode_path

PREFIX = len("x-amz-meta-")
CAUTIOUS = MetadataRoom(2048, each=PREFIX)


@frozen
class Dialect:
    """How one kind of store is spoken to.

    ``checksum``: ``crc32c``, ``crc64nvme``, ``md5`` (as Content-MD5) or ``none``. ``full_object``: the store combines
    the parts' checksums into that of the whole object (else it has a checksum of checksums). ``size_at_complete``:
    it compares ``x-amz-mp-object-size``. ``put_if_absent`` and ``complete_if_absent``: ``If-None-Match: *`` is heeded
    on PutObject and on CompleteMultipartUpload. ``path_style``: the bucket stands in the path, not in the host name.
    ``fixed_region``: that of signatures when no region is set. ``metadata``: how much of it an object may
    have; S3's 2 KB, with the names as they are sent, where nobody says more. A store that takes less refuses, and gets
    the object without (`resumable.remotes.metadata`).
    """

    name: str
    limits: PartLimits = S3
    checksum: str = "md5"
    full_object: bool = False
    size_at_complete: bool = False
    put_if_absent: bool = False
    complete_if_absent: bool = False
    path_style: bool = True
    fixed_region: str = "us-east-1"
    metadata: MetadataRoom = CAUTIOUS


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
    metadata=MetadataRoom(2048),
)

#: Conditions: https://github.com/minio/minio/pull/16551. Checksums of whole objects came in 2025
#: (https://github.com/minio/minio/issues/20944) and fail here and there (https://github.com/pgsty/silo/issues/31);
#: those of parts are older.
MINIO = Dialect("minio", checksum="crc32c", put_if_absent=True, complete_if_absent=True)

#: https://developers.cloudflare.com/r2/api/s3/api/: all parts but the last have the same size, objects have just under
#: 5 TiB, the region is "auto". https://developers.cloudflare.com/r2/api/s3/conditional-operations/: PutObject and
#: CompleteMultipartUpload heed If-None-Match. CRC32C of parts: a table on the first page.
R2 = Dialect(
    "r2",
    checksum="crc32c",
    limits=PartLimits(largest_object=5 * TIB - 5 * (1 << 30), equal=True),
    put_if_absent=True,
    complete_if_absent=True,
    fixed_region="auto",
    metadata=MetadataRoom(8192, each=PREFIX),
)

#: https://www.backblaze.com/docs/cloud-storage-s3-compatible-api: x-amz-checksum-* is refused as an unsupported header
#: (https://github.com/iterate-ch/cyberduck/issues/16107), a conditional PutObject as not implemented
#: (https://github.com/lance-format/lance/issues/5614).
BACKBLAZE = Dialect("backblaze", metadata=MetadataRoom(2048, entries=10, each=PREFIX))

#: The abilities that releases in use share. If-None-Match on PutObject is old (https://github.com/ceph/s3-tests/issues/218)
#: yet reported as ignored (https://github.com/open-rails/contentkit/releases/tag/v0.58.1); on CompleteMultipartUpload
#: it came in 2025 (https://github.com/ceph/ceph/pull/64830), as did CRC64NVME (https://github.com/ceph/ceph/pull/61878).
CEPH = Dialect("ceph")

#: The XML API of Google Cloud Storage with HMAC keys. https://cloud.google.com/storage/docs/multipart-uploads:
#: completing replaces another object, and preconditions don't go with it; else they go by generation. Content-MD5 is
#: compared (https://cloud.google.com/storage/docs/xml-api/put-object-multipart).
GCS_INTEROP = Dialect("gcs-interop", fixed_region="auto", metadata=MetadataRoom(8192, each=PREFIX))

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


PORTS = {"http": 80, "https": 443}
#: The text doesn't repeat the URL: it may hold a password.
LIKE = "an endpoint looks like https://host or http://host:port; credentials come from the environment"


@frozen
class Endpoint:
    """One bucket's address.

    ``netloc``: the value of Host. ``base`` is the path of the bucket, without a slash at its end: empty where the
    bucket is in the host's name.
    """

    scheme: str
    host: str
    port: int
    base: str
    region: str
    bucket: str

    @property
    def secure(self) -> bool:
        """Whether it is reached over TLS."""
        return self.scheme == "https"

    @property
    def local(self) -> bool:
        """Whether it is on this machine, so that nobody is on the way."""
        return self.host == "localhost" or (_is_address(self.host) and ip_address(self.host).is_loopback)

    @property
    def netloc(self) -> str:
        """Host, and port where it isn't the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def url(self, key: str) -> str:
        """The address of the object, encoded as it is signed and sent; of the bucket for an empty key."""
        return f"{self.scheme}://{self.netloc}{encode_path(f'{self.base}/{key}')}"


@frozen
class S3Place:
    """The bucket's place, as the operator gives it. ``url`` is for stores other than AWS; None: AWS."""

    bucket: str
    region: str | None = None
    url: str | None = None
    path_style: bool | None = None
    dual_stack: bool = False
    fips: bool = False
    accelerate: bool = False


def resolve(place: S3Place, dialect: Dialect = AWS) -> Endpoint:
    """The endpoint for that place. Raises ValueError, one line, for values that can't be.

    For AWS it reads botocore's rules from the disk: before the reactor runs, or in a thread.
    """
    if not re.fullmatch(r"[A-Za-z0-9._:/-]{1,255}", place.bucket):
        raise ValueError(f"{place.bucket!r} is no bucket's name")
    region = place.region or dialect.fixed_region
    if not re.fullmatch(r"[a-z0-9-]{1,64}", region):
        raise ValueError(f"{region!r} is no region")
    path_style = dialect.path_style if place.path_style is None else place.path_style
    if place.url is None:
        return _of_aws(place, region, path_style)
    if place.dual_stack or place.fips or place.accelerate:
        raise ValueError("dual stack, FIPS and acceleration are AWS's: they don't go with an endpoint of your own")
    return _of_url(place, region, path_style)


def _of_url(place: S3Place, region: str, path_style: bool) -> Endpoint:
    base = _split(place.url or "", region, place.bucket)
    if path_style or _is_address(base.host) or not _fits_host(place.bucket, base.secure):
        return Endpoint(base.scheme, base.host, base.port, f"{base.base}/{place.bucket}", region, place.bucket)
    return Endpoint(base.scheme, f"{place.bucket}.{base.host}", base.port, base.base, region, place.bucket)


def _of_aws(place: S3Place, region: str, path_style: bool) -> Endpoint:
    loader = Loader()
    rules = EndpointProvider(
        loader.load_service_model("s3", "endpoint-rule-set-1"), loader.load_data("partitions")
    )  # fmt: skip
    try:
        found = rules.resolve_endpoint(
            Bucket=place.bucket,
            Region=region,
            UseFIPS=place.fips,
            UseDualStack=place.dual_stack,
            Accelerate=place.accelerate,
            ForcePathStyle=path_style,
            UseGlobalEndpoint=False,
        )
    except BotoCoreError as error:
        raise ValueError(f"no endpoint for the bucket {place.bucket!r} in {region}: {error}") from None
    scheme = found.properties["authSchemes"][0]
    if scheme["name"] != "sigv4" or scheme.get("signingName", "s3") != "s3":
        raise ValueError(f"the bucket {place.bucket!r} needs signatures of kind {scheme['name']}, which we don't make")
    return _split(found.url, scheme.get("signingRegion", region), place.bucket)


def _split(url: str, region: str, bucket: str) -> Endpoint:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(LIKE) from None
    if parts.scheme not in PORTS or not parts.hostname or has_user(url) or parts.query or parts.fragment:
        raise ValueError(LIKE)
    base = parts.path.rstrip("/")
    return Endpoint(parts.scheme, parts.hostname, port or PORTS[parts.scheme], base, region, bucket)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _fits_host(bucket: str, secure: bool) -> bool:
    """Whether the bucket's name can be part of a host's; with dots it fits no wildcard certificate."""
    return re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket) is not None and not (secure and "." in bucket)
