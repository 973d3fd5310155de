"""Requests signed with AWS Signature Version 4, by botocore.

One reason to change: how requests prove who sent them. No I/O; the time is passed in.

Invariant: what is signed is byte for byte what is sent: path and query are encoded here, once, and Host carries its
port. Nothing is logged: botocore's own ``add_auth`` would log the session token.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest

from resumable.remotes.s3.credentials import Keys

UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


def encode_path(path: str) -> str:
    """A path as S3 wants it: each byte but unreserved ones and ``/`` is escaped, nothing is normalised."""
    return quote(path, safe="/~")


def encode_query(query: Sequence[tuple[str, str]]) -> str:
    """A query in canonical order and encoding; a name without value keeps its ``=``."""
    return "&".join(sorted(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query))


class _Auth(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """botocore's signer with a time, a payload's digest and a signing key that are given."""

    def __init__(self, keys: Keys, region: str, signing_key: bytes) -> None:
        super().__init__(keys, "s3", region)
        self._signing_key = signing_key

    def payload(self, request: Any) -> str:
        return str(request.context["payload"])

    def signature(self, string_to_sign: str, request: Any) -> str:
        return hmac.new(self._signing_key, string_to_sign.encode(), hashlib.sha256).hexdigest()

    def sign(self, request: Any) -> None:
        """As ``add_auth``, with the time of the request's context."""
        self._modify_request_before_signing(request)
        string_to_sign = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(request, self.signature(string_to_sign, request))


class Signer:
    """Signs for one region. Keeps the signing key of the day, so that it needn't be derived for each request."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._derived: tuple[Keys, str, bytes] | None = None

    def sign(
        self, method: str, url: str, headers: Mapping[str, str], payload: str, keys: Keys, now: float
    ) -> dict[str, str]:
        """``headers`` and those that sign them.

        ``url`` is encoded already. ``payload`` is the body's SHA-256 in hexadecimal, or UNSIGNED. ``now`` is in
        seconds since the epoch.
        """
        timestamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        request = AWSRequest(method, url, headers=dict(headers))
        request.context["timestamp"] = timestamp
        request.context["payload"] = payload
        _Auth(keys, self.region, self._key(keys, timestamp[:8])).sign(request)
        return dict(request.headers.items())

    def _key(self, keys: Keys, day: str) -> bytes:
        if self._derived is None or self._derived[:2] != (keys, day):
            key = f"AWS4{keys.secret_key}".encode()
            for step in (day, self.region, "s3", "aws4_request"):
                key = hmac.new(key, step.encode(), hashlib.sha256).digest()
            self._derived = keys, day, key
        return self._derived[2]
