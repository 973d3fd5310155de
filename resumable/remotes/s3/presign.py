"""URLs that carry their signature, made by botocore.

One reason to change: how a URL proves who allows its use. No I/O; the time is passed in.

Invariant: the only header that is signed is Host, so that a reader may ask for ranges; the secret key isn't in it.
Nothing is logged: botocore's own ``add_auth`` would log the session token.
Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest

from resumable.remotes.s3.credentials import Keys

LONGEST = 7 * 86400
"""Seconds that a URL may be good for."""


class _Auth(S3SigV4QueryAuth):  # type: ignore[misc]  # botocore has no types
    def sign(self, request: Any) -> None:
        """As ``add_auth``, with the time of the request's context."""
        self._modify_request_before_signing(request)
        string_to_sign = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(request, self.signature(string_to_sign, request))


def presigned(url: str, keys: Keys, region: str, now: float, seconds: float) -> str:
    """``url``, encoded already, for a GET that needs nothing else for so long. ``now``: seconds since the epoch."""
    request = AWSRequest("GET", url)
    request.context["timestamp"] = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    _Auth(keys, "s3", region, expires=max(1, min(LONGEST, int(seconds)))).sign(request)
    return str(request.url)
