"""Standard Webhooks' signatures.

One reason to change: how messages are signed. Pure.

Invariant: a secret never shows in a message or a repr. Spec: https://github.com/standard-webhooks/standard-webhooks
(spec/standard-webhooks.md, "Signature scheme", symmetric): HMAC-SHA256 over ``id.timestamp.body``, one signature for
each secret, so that a receiver can change from one secret to the next.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from hashlib import sha256

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes of a secret, as the specification has them."""


def parse_secret(text: str) -> bytes:
    """The key in ``whsec_...`` (base64 of 24 to 64 bytes). Raises ValueError, which does not repeat it."""
    try:
        encoded = text.strip().removeprefix(PREFIX)
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a secret is whsec_ and base64") from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(f"a secret has {SHORTEST} to {LONGEST} bytes, in base64")
    return key


class Signer:
    """Signs with each of ``secrets``, the newest first; without any, nothing is signed."""

    def __init__(self, secrets: Sequence[bytes] = ()) -> None:
        self._secrets = tuple(secrets)

    def headers(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """The fields that go with the message. ``timestamp``: seconds, when this attempt is made."""
        headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
        content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
        signatures = [base64.b64encode(hmac.digest(secret, content, sha256)).decode() for secret in self._secrets]
        if signatures:
            headers["webhook-signature"] = " ".join(f"v1,{signature}" for signature in signatures)
        return headers
