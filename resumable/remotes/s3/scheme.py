"""``s3://bucket/prefix?options``: from an operator's URL to a working remote.

The options are on the page docs/remotes.md, word for word.

Invariant: each error that can be found without the store is found before anything starts. Neither a URL nor a
specification holds a secret: keys come from where botocore looks, SSE-C's from a file or a variable.
"""

from __future__ import annotations

import binascii
import re
import ssl
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import evolve
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.web.client import BrowserLikePolicyForHTTPS

from resumable.httpclient.client import Http, HttpLimits
from resumable.model import values
from resumable.remotes.s3.checksums import ALGORITHMS, algorithm
from resumable.remotes.s3.client import S3Client
from resumable.remotes.s3.credentials import SessionCredentials, botocore_session
from resumable.remotes.s3.endpoint import DIALECTS, Dialect, Endpoint, S3Place, dialect, dialect_of_host, resolve
from resumable.remotes.s3.records import S3ObjectOptions
from resumable.remotes.s3.remote import S3Remote
from resumable.remotes.s3.requests import S3Requests
from resumable.remotes.s3.s3_spool import S3SpoolStore
from resumable.remotes.urls import BackendServices, RemoteSpec, Scheme, flag, part_size

OTHER_REQUESTS = 16
"""Connections beside those that write parts: beginnings, ends and questions don't wait for large bodies."""

OPTIONS = {
    "region": "the bucket's region (default `AWS_S3_REGION`, `AWS_REGION`, `AWS_DEFAULT_REGION`, the dialect's)",
    "endpoint": "URL of a store that isn't AWS, as `http://minio:9000` (default `AWS_S3_ENDPOINT`,"
    " `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, AWS)",
    "dialect": f"what the store supports: `{'`, `'.join(DIALECTS)}` (default by the endpoint's name, else `generic`)",
    "style": "`path` or `virtual`: the bucket is in the path or in the host name (default the dialect's)",
    "profile": "profile in the AWS configuration files with the credentials (default botocore's)",
    "part-size": "size of parts, from 5M to 5G (default `--part-size`)",
    "checksum": f"checksum that the store verifies: `{'`, `'.join(ALGORITHMS)}` (default the dialect's)",
    "sign": "`body`: the signature covers the bodies too; `headers`: it does not, which saves CPU (default `headers`"
    " with https and for a store on this machine, else `body`)",
    "storage-class": "storage class of the objects, as `STANDARD_IA` (default the bucket's)",
    "acl": "canned ACL of the objects, as `bucket-owner-full-control` (default none)",
    "sse": "encryption by the store: `AES256`, `aws:kms` or `aws:kms:dsse` (default the bucket's)",
    "sse-key": "id or ARN of the KMS key, with `aws:kms` (default the account's)",
    "sse-c-file": "SSE-C: absolute path of a file with a key of 32 bytes, raw or as base64",
    "sse-c-variable": "SSE-C: name of an environment variable with the key as base64",
    "tags": "tags of the objects, as `team=media,env=prod`",
    "metadata": "`no`: the objects don't get the metadata of the uploads (default `yes`)",
    "accelerate": "`yes`: use S3 Transfer Acceleration (default `no`)",
    "dual-stack": "`yes`: use endpoints with IPv4 and IPv6 (default `no`)",
    "fips": "`yes`: use FIPS endpoints (default `no`)",
    "ca-file": "PEM file of the authorities for the endpoint's certificate (default `AWS_CA_BUNDLE`, the system's)",
}
VARIABLES = {
    "region": ("AWS_S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint": ("AWS_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "ca-file": ("AWS_CA_BUNDLE",),
}
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html#canned-acl
ACLS = (
    "private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read", "bucket-owner-read",
    "bucket-owner-full-control",
)  # fmt: skip
#: Objects in them can't be read at once:
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html
ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_part_size = values.size_between("5M", "5G")
_CERTIFICATE = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


def dialect_for(options: Mapping[str, str]) -> Dialect:
    """The dialect that is named, or else the endpoint's, with the settings that options change. Raises ValueError."""
    name, endpoint = options.get("dialect"), options.get("endpoint")
    chosen = dialect(name) if name else dialect_of_host(_host(endpoint) if endpoint else "amazonaws.com")
    checksum = options.get("checksum")
    if checksum:
        algorithm(checksum)
        # CRC64NVME has no checksum of checksums
        whole = checksum == "crc64nvme" or (chosen.full_object and checksum == chosen.checksum)
        chosen = evolve(chosen, checksum=checksum, full_object=whole)
    algorithm(chosen.checksum)
    return chosen


def endpoint_for(spec: RemoteSpec, spoken: Dialect) -> Endpoint:
    """Where the bucket is. Raises ValueError. Reads botocore's rules from the disk for AWS."""
    options = spec.options
    style = _one_of(options, "style", ("path", "virtual"))
    place = S3Place(
        spec.bucket,
        options.get("region") or None,
        options.get("endpoint") or None,
        None if style is None else style == "path",
        dual_stack=flag(options, "dual-stack", False),
        fips=flag(options, "fips", False),
        accelerate=flag(options, "accelerate", False),
    )
    return resolve(place, spoken)


def signs_bodies(options: Mapping[str, str], endpoint: Endpoint) -> bool:
    """Whether signatures cover the bodies: where anybody on the way could change them. Raises ValueError."""
    said = _one_of(options, "sign", ("body", "headers"))
    return not (endpoint.secure or endpoint.local) if said is None else said == "body"


def objects_for(options: Mapping[str, str], customer_key: bytes | None = None) -> S3ObjectOptions:
    """The options of objects. Raises ValueError."""
    storage_class = options.get("storage-class") or None
    if storage_class and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", storage_class):
        raise ValueError("storage-class is a word like STANDARD_IA")
    kms_key = options.get("sse-key") or None
    if kms_key and not re.fullmatch(r"[A-Za-z0-9:/_-]{1,2048}", kms_key):
        raise ValueError("sse-key is the id or the ARN of a KMS key")
    return S3ObjectOptions(
        storage_class=storage_class,
        acl=_one_of(options, "acl", ACLS),
        encryption=_one_of(options, "sse", ("AES256", "aws:kms", "aws:kms:dsse")),
        kms_key=kms_key,
        customer_key=customer_key,
        tags=_tags(options.get("tags", "")),
        client_metadata=flag(options, "metadata", True),
    )


def customer_key(options: Mapping[str, str], environ: Mapping[str, str]) -> bytes | None:
    """SSE-C's key; None where none is asked for. Raises ValueError, which never repeats the key."""
    file, variable = options.get("sse-c-file"), options.get("sse-c-variable")
    if file:
        try:
            found = Path(file).read_bytes()
        except OSError as error:
            raise ValueError(f"sse-c-file {file} can't be read: {error.strerror}") from None
    elif variable:
        found = environ.get(variable, "").encode()
    else:
        return None
    if file and len(found) == 32:
        return found
    try:
        key = b64decode(found.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32:
        where = f"the file {file}" if file else f"the variable {variable}"
        raise ValueError(f"{where} has no key of 32 bytes in base64, as from: openssl rand -base64 32")
    return key


def check(spec: RemoteSpec) -> None:
    """Raises ValueError for values that can't be. See `Scheme`."""
    options = spec.options
    endpoint = endpoint_for(spec, dialect_for(options))
    objects_for(options)
    if options.get("part-size"):
        part_size(options, 0, _part_size)
    signs_bodies(options, endpoint)
    file, variable = options.get("sse-c-file"), options.get("sse-c-variable")
    if (file or variable) and not endpoint.secure:
        raise ValueError("SSE-C needs https: the key goes with each request")
    if (file or variable) and (options.get("sse") or (file and variable)):
        raise ValueError("take one of sse, sse-c-file and sse-c-variable")
    if file and not file.startswith("/"):
        raise ValueError("sse-c-file is an absolute path")
    if variable and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise ValueError("sse-c-variable is the name of an environment variable, not the key")


def _connected(spec: RemoteSpec, services: BackendServices, spoken: Dialect) -> tuple[S3Client, Http]:
    options = spec.options
    limits = HttpLimits(idle_timeout=services.timeout, connections=services.parts + OTHER_REQUESTS)
    http = Http(services.reactor, limits, policy=policy_for(options.get("ca-file")))
    credentials = SessionCredentials(services.pool, services.now, botocore_session(options.get("profile") or None))
    place = endpoint_for(spec, spoken)
    signs = signs_bodies(options, place)
    requests = S3Requests(
        place, credentials, http, services.pool, services.now, memory=services.memory, sign_bodies=signs
    )
    return S3Client(requests), http


def make(spec: RemoteSpec, services: BackendServices) -> S3Remote:
    """The remote. Raises ValueError; reads files, so it is called before the reactor runs."""
    options, spoken = spec.options, dialect_for(spec.options)
    objects = objects_for(options, customer_key(options, services.environ))
    client, http = _connected(spec, services, spoken)
    return S3Remote(
        client,
        services.journal,
        services.pool,
        services.now,
        dialect=spoken,
        template=spec.template,
        options=objects,
        part_size=part_size(options, services.part_size, _part_size),
        replace=spec.replace,
        closing=http.close,
    )


def make_store(spec: RemoteSpec, services: BackendServices) -> S3SpoolStore:
    """The same as a spool. Raises ValueError, as `make` does."""
    options, spoken = spec.options, dialect_for(spec.options)
    objects = objects_for(options, customer_key(options, services.environ))
    if objects.storage_class in ARCHIVES:
        raise ValueError(f"storage-class={objects.storage_class}: what a spool has must be readable at once")
    client, http = _connected(spec, services, spoken)
    return S3SpoolStore(
        client,
        services.pool,
        services.now,
        template=spec.template,
        dialect=spoken,
        options=objects,
        part_size=part_size(options, services.part_size, _part_size),
        closing=http.close,
    )


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""  # told by whoever resolves it


def _one_of(options: Mapping[str, str], name: str, words: tuple[str, ...]) -> str | None:
    """The option's value; None where it isn't given."""
    value = options.get(name) or None
    if value is not None and value not in words:
        raise ValueError(f"{name} is one of {', '.join(words)}")
    return value


def _tags(text: str) -> dict[str, str]:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html: ten at most, of limited length."""
    tags: dict[str, str] = {}
    for each in filter(None, text.split(",")):
        name, equals, value = each.partition("=")
        if (
            not equals
            or not re.fullmatch(r"[\w +=.:/@-]{1,128}", name)
            or not re.fullmatch(r"[\w +=.:/@-]{0,256}", value)
        ):
            raise ValueError("tags look like team=media,env=prod")
        tags[name] = value
    if len(tags) > 10:
        raise ValueError("tags: a store takes ten at most")
    return tags


def policy_for(ca_file: str | None) -> Any:
    """A policy that trusts the authorities in this file; None: the system's. Raises ValueError."""
    if not ca_file:
        return None
    try:
        ssl.create_default_context(cafile=ca_file)
        found = _CERTIFICATE.findall(Path(ca_file).read_bytes())
    except ssl.SSLError:
        raise ValueError(f"ca-file {ca_file} holds no certificates in PEM") from None
    except OSError as error:
        raise ValueError(f"ca-file {ca_file} can't be read: {error.strerror}") from None
    return BrowserLikePolicyForHTTPS(trustRootFromCertificates([Certificate.loadPEM(each) for each in found]))


SCHEME = Scheme("s3", make, "bucket", OPTIONS, check, VARIABLES, make_store)
