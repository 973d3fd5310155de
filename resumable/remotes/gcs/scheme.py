"""``gs://bucket/prefix?options``: from an operator's URL to a working remote.

The options are on the page docs/google.md, word for word.

Invariant: each error that can be found without the store is found before anything starts. A URL never holds a
secret, and no token goes over a connection that isn't encrypted.
Source: https://docs.cloud.google.com/storage/docs/buckets#naming
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from resumable.httpclient.client import Http, HttpLimits
from resumable.model import values
from resumable.remotes.gcs.credentials import Anonymous, GoogleTokens, ITokens, found
from resumable.remotes.gcs.records import GcsObjectOptions
from resumable.remotes.gcs.remote import GcsRemote
from resumable.remotes.gcs.requests import GOOGLE, GcsPlace, GcsRequests
from resumable.remotes.urls import BackendServices, RemoteSpec, Scheme, flag, part_size

OTHER_REQUESTS = 16
"""Connections beside those that write parts: beginnings, ends and questions don't wait for large bodies."""

OPTIONS = {
    "endpoint": "URL of the store, as `https://host` or `http://host:port` (default `STORAGE_EMULATOR_HOST`, else"
    " Google)",
    "anonymous": "`yes`: requests have no credentials, as emulators expect it (default `yes` with an `http` endpoint)",
    "credentials": "absolute path of a JSON file of a service account, of workload identity or of a user (default: as"
    " Google's tools find them)",
    "user-project": "project that pays for the requests, if the bucket's requester pays (default none)",
    "part-size": "size of chunks, from 256K to 5G, rounded up to a multiple of 256K (default `--part-size`)",
    "storage-class": "storage class of the objects, as `NEARLINE` (default the bucket's)",
    "kms-key": "resource name of a Cloud KMS key (default the bucket's)",
    "acl": "predefined ACL of the objects, as `projectPrivate`, if the bucket's access isn't uniform (default none)",
    "metadata": "`no`: the objects don't get the metadata of the uploads (default `yes`)",
}
VARIABLES = {"endpoint": ("STORAGE_EMULATOR_HOST",)}
_PATTERNS = {
    "user-project": (r"[a-z0-9:.-]{1,100}", "the id or number of a project"),
    "storage-class": (r"[A-Z_]{1,40}", "a word like NEARLINE"),
    "kms-key": (
        r"projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+/cryptoKeys/[^/\s]+",
        "projects/P/locations/L/keyRings/R/cryptoKeys/K",
    ),
    "acl": (
        "authenticatedRead|bucketOwnerFullControl|bucketOwnerRead|private|projectPrivate|publicRead",
        "a predefined ACL, as projectPrivate",
    ),
    "credentials": (r"/[^\x00-\x1f]*", "an absolute path"),
}
_part_size = values.size_between("256K", "5G")


def check(spec: RemoteSpec) -> None:
    """Raises ValueError for values that can't be. See `Scheme`."""
    options = spec.options
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", spec.bucket):
        raise ValueError("a bucket's name has 3 to 222 of a-z, 0-9, hyphens, underscores and dots")
    for name, (pattern, meaning) in _PATTERNS.items():
        if options.get(name) and not re.fullmatch(pattern, options[name]):
            raise ValueError(f"{name} is {meaning}")
    if options.get("part-size"):
        part_size(options, 0, _part_size)
    is_anonymous(options)
    flag(options, "metadata", True)


def endpoint_for(options: Mapping[str, str]) -> str:
    """Where the store is, without a slash at the end. Raises ValueError; it repeats no URL, which may hold a secret."""
    said = options.get("endpoint") or GOOGLE
    url = said if "://" in said else f"http://{said}"  # as STORAGE_EMULATOR_HOST often is
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        right = False
    if not right or "@" in url or "?" in url or "#" in url or not re.fullmatch(r"[!-~]+", url):
        raise ValueError("an endpoint looks like https://host or http://host:port; credentials come from a file")
    return url.rstrip("/")


def is_anonymous(options: Mapping[str, str]) -> bool:
    """Whether requests carry no credentials. Raises ValueError."""
    is_secure = endpoint_for(options).startswith("https://")
    anonymous = flag(options, "anonymous", not is_secure)
    if anonymous and options.get("credentials"):
        raise ValueError("credentials are of no use to anonymous requests; an endpoint that is http has no others")
    if not anonymous and not is_secure:
        raise ValueError("anonymous=no needs an endpoint that is https: anybody on the way could take the token")
    return anonymous


def make(spec: RemoteSpec, services: BackendServices) -> GcsRemote:
    """The remote. Raises ValueError. Credentials are looked for when the first request needs them."""
    options = spec.options
    tokens: ITokens = GoogleTokens(services.pool, services.now, found(options.get("credentials") or None))
    if is_anonymous(options):
        tokens = Anonymous()
    http = Http(
        services.reactor, HttpLimits(idle_timeout=services.timeout, connections=services.parts + OTHER_REQUESTS)
    )
    place = GcsPlace(spec.bucket, endpoint_for(options), options.get("user-project") or None)
    return GcsRemote(
        GcsRequests(place, tokens, http, memory=services.memory),
        services.journal,
        services.now,
        services.rng,
        template=spec.template,
        options=GcsObjectOptions(
            storage_class=options.get("storage-class") or None,
            kms_key=options.get("kms-key") or None,
            acl=options.get("acl") or None,
            client_metadata=flag(options, "metadata", True),
        ),
        part_size=part_size(options, services.part_size, _part_size),
        replace=spec.replace,
        closing=http.close,
    )


SCHEME = Scheme("gs", make, "bucket", OPTIONS, check, VARIABLES)
