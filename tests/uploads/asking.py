"""What tests of hooks share: an upload to ask about, the request that makes it, and what hooks want of it."""

from __future__ import annotations

from resumable.model.hooks import Changes, Granted, RequestView
from resumable.protocol import tus
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import told

DATA = b"0123456789"
GIVEN = "an-id-that-was-given"
REQUEST = RequestView("POST", "/files/", "192.0.2.7:1", {"cookie": ("a=1",)}, "7f3a-1")


def kinds(server, upload_id):
    return [fact.kind for fact in told(server, "outside") if fact.upload_id == upload_id]


def changed(**changes):
    raw = changes.pop("raw", None)
    return Granted(Changes(**changes), raw_metadata=raw)


def posted(length, body=b"", metadata=None):
    """What `Uploads.create` is given."""
    creation = tus.Creation(length, length is None, metadata, None, None, None, False, bool(body))
    return creation, FakeBody.whole(body)
