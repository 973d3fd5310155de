"""Signatures of requests and URLs, Signature Version 4.

Invariant: the signed request is sent byte for byte: path and query are encoded here, once, and Host carries its port.
Nothing is logged: botocore's own ``add_auth``, which is passed by, would log the session token. Of a URL only Host is
signed, so that a reader may ask for ranges. A test compares signatures of requests with those of botocore.
Sources: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html and
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from attrs import field, frozen
from botocore.auth import S3SigV4QueryAuth
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


@frozen
class _Day:
    """What all requests of a day, with the same keys, have in common. ``key`` signs them."""

    keys: Keys
    date: str
    key: bytes = field(repr=False)
    scope: str


class S3Signer:
    """Signs for one region. Keeps the signing key of the day, so that it needn't be derived for each request."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._day: _Day | None = None
        self._second, self._timestamp = -1, ""

    def sign(
        self, method: str, url: str, headers: Mapping[str, str], payload: str, keys: Keys, now: float
    ) -> dict[str, str]:
        """``headers`` and those that sign them, all of them.

        ``url`` is encoded already. ``payload`` is the body's SHA-256 in hexadecimal, or UNSIGNED. ``now`` is in
        seconds since the epoch.
        """
        if int(now) != self._second:
            self._second = int(now)
            self._timestamp = datetime.fromtimestamp(self._second, UTC).strftime("%Y%m%dT%H%M%SZ")
        timestamp = self._timestamp
        day = self._day_of(keys, timestamp[:8])
        netloc, _, target = url.partition("://")[2].partition("/")
        path, _, query = target.partition("?")
        ours = {"X-Amz-Date": timestamp, "X-Amz-Content-SHA256": payload}
        if keys.token:
            ours["X-Amz-Security-Token"] = keys.token
        signed = dict(headers, **ours)
        values = {name.lower(): " ".join(value.split()) for name, value in signed.items()}
        values.setdefault("host", netloc)
        named = sorted(values.items())
        lines = "".join([f"{name}:{value}\n" for name, value in named])
        names = ";".join([name for name, _ in named])
        request = f"{method}\n/{path}\n{_in_order(query)}\n{lines}\n{names}\n{payload}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{timestamp}\n{day.scope}\n{digest}"
        signature = hmac.digest(day.key, text.encode(), "sha256").hex()
        signed["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{day.scope}, SignedHeaders={names}, Signature={signature}"
        )
        return signed

    def _day_of(self, keys: Keys, date: str) -> _Day:
        day = self._day
        if day is None or day.date != date or day.keys != keys:
            key = f"AWS4{keys.secret_key}".encode()
            for step in (date, self.region, "s3", "aws4_request"):
                key = hmac.digest(key, step.encode(), "sha256")
            day = self._day = _Day(keys, date, key, f"{date}/{self.region}/s3/aws4_request")
        return day


def _in_order(query: str) -> str:
    """The query as it is signed: in order of the names, then of the values, which is not always that of the pairs."""
    return "&".join(map("=".join, sorted([pair.split("=", 1) for pair in query.split("&")]))) if "&" in query else query


LONGEST = 7 * 86400
"""Seconds that a URL may be good for."""


class _QueryAuth(S3SigV4QueryAuth):  # type: ignore[misc]  # botocore has no types
    """botocore's signer of URLs, at the time of the request's context; its ``add_auth`` would log the token."""

    def sign(self, request: Any) -> None:
        """As ``add_auth``."""
        self._modify_request_before_signing(request)
        string_to_sign = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(request, self.signature(string_to_sign, request))


def presigned(url: str, keys: Keys, region: str, now: float, seconds: float) -> str:
    """``url``, encoded already, for a GET that needs nothing else for so long. ``now``: seconds since the epoch."""
    request = AWSRequest("GET", url)
    request.context["timestamp"] = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    _QueryAuth(keys, "s3", region, expires=max(1, min(LONGEST, int(seconds)))).sign(request)
    return str(request.url)
