"""Credentials in a request's Authorization field, and the challenges that ask for them.

Invariant: a field that is malformed or given twice is no credential. Spec: RFC 9110 section 11, RFC 7617 (Basic),
RFC 6750 (Bearer).
"""

from __future__ import annotations

import hashlib
import hmac
import re

from resumable.auth.interfaces import AuthRequest
from resumable.auth.secret import AccessProblem
from resumable.protocol.errors import Unauthorized
from resumable.protocol.fields import base64

_SCHEME = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) +([^ ]+)")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")

BASIC = 'Basic realm="resumable", charset="UTF-8"'
BEARER = 'Bearer realm="resumable"'
LONGEST_NAME = 255


def _credentials(request: AuthRequest, scheme: str) -> str | None:
    match = _SCHEME.fullmatch(request.one("authorization") or "")
    return match[2] if match and match[1].lower() == scheme else None


def basic(request: AuthRequest) -> tuple[str, bytes] | None:
    """User and password."""
    encoded = _credentials(request, "basic")
    try:
        user, colon, password = base64(encoded or "").partition(b":")
        return (user.decode(), password) if colon else None
    except ValueError:
        return None


def bearer(request: AuthRequest) -> str | None:
    """The token."""
    token = _credentials(request, "bearer")
    return token if token and is_token(token) else None


def is_token(text: str) -> bool:
    """Whether it can be sent as a bearer token."""
    return _TOKEN.fullmatch(text) is not None


def invalid_token(detail: str) -> Unauthorized:
    """A bearer token came, and it was wrong. ``detail`` is a fixed text."""
    return Unauthorized(detail, [f'{BEARER}, error="invalid_token", error_description="{detail}"'])


def valid_name(name: object) -> bool:
    """Whether it can be an identity's: something that people can read, the same however it was written."""
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable() and name == name.strip()


def needs(extra: str, package: str) -> AccessProblem:
    """A package that only this part needs isn't there."""
    return AccessProblem(f"{package} is not installed; run: pip install 'resumable-server[{extra}]'")


def fingerprint(salt: bytes, *parts: bytes) -> bytes:
    """A key for credentials that can't be told from it. ``salt``: random, of this process."""
    keyed = hmac.new(salt, digestmod=hashlib.sha256)
    for part in parts:
        keyed.update(len(part).to_bytes(8, "big") + part)
    return keyed.digest()
