"""Where a bucket is reached.

One reason to change: how names of endpoints are made up; AWS's come from botocore's rules.

Invariant: an `Endpoint` is complete: nothing about the address is decided later.
Source: https://docs.aws.amazon.com/general/latest/gr/s3.html
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from attrs import frozen
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader

from resumable.masking import has_user
from resumable.remotes.s3.dialects import AWS, Dialect
from resumable.remotes.s3.signing import encode_path

PORTS = {"http": 80, "https": 443}
#: What is wrong isn't repeated: it may hold a password.
LIKE = "an endpoint looks like https://host or http://host:port; credentials come from the environment"


@frozen
class Endpoint:
    """One bucket's address.

    ``netloc`` is what Host carries. ``base`` is the path of the bucket, without a slash at its end: empty where the
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
        return self.scheme == "https"

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def url(self, key: str) -> str:
        """The address of the object, encoded as it is signed and sent; of the bucket for an empty key."""
        return f"{self.scheme}://{self.netloc}{encode_path(f'{self.base}/{key}')}"


@frozen
class Place:
    """What an operator says of where the bucket is. ``url`` is for stores other than AWS; None: AWS."""

    bucket: str
    region: str | None = None
    url: str | None = None
    path_style: bool | None = None
    dual_stack: bool = False
    fips: bool = False
    accelerate: bool = False


def resolve(place: Place, dialect: Dialect = AWS) -> Endpoint:
    """The endpoint for that place. Raises ValueError, one line, for what can't be.

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


def _of_url(place: Place, region: str, path_style: bool) -> Endpoint:
    base = _split(place.url or "", region, place.bucket)
    if path_style or _is_address(base.host) or not _fits_host(place.bucket, base.secure):
        return Endpoint(base.scheme, base.host, base.port, f"{base.base}/{place.bucket}", region, place.bucket)
    return Endpoint(base.scheme, f"{place.bucket}.{base.host}", base.port, base.base, region, place.bucket)


def _of_aws(place: Place, region: str, path_style: bool) -> Endpoint:
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
