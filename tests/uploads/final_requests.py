"""What tests of final uploads share: partials, the request for a final, and what hooks say."""

from __future__ import annotations

from resumable.model.hooks import RequestView
from resumable.protocol import tus
from resumable.protocol.concat import FinalUpload
from resumable.protocol.errors import Refused, Unavailable
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import pattern

A, B, C = pattern(10_000, 1), pattern(3, 2), pattern(5_000, 3)
NO = Refused(422, {"X-Why": "virus"}, b"a virus \xff")
DOWN = Unavailable("The hook is down.")
ASKED = RequestView("POST", "/files/", "192.0.2.1", {"cookie": ("session=1",), "x-user": ("ann", "bob")}, "r-1")
WITHIN = 20.0


def parts(server, *datas):
    """Partials that are finished without anybody being asked."""
    says, server.hooks.says = server.hooks.says, {}
    ids = [server.upload(data, partial=True) for data in datas]
    server.hooks.says = says
    del server.hooks.asked[:], server.hooks.requests[:]
    return ids


def request(*ids, metadata=None):
    """What `Uploads.concatenate` is given."""
    final = FinalUpload(tuple(f"/files/{each}" for each in ids))
    return tus.Creation(None, False, metadata, final, final.header, None, False, False), ids


def patched(data):
    """What `Uploads.append` is given for a PATCH at 0."""
    return tus.Append(0, None, None, False), FakeBody.whole(data)


def finals(server, *others):
    """The data files that are no partials."""
    return server.names() - set(others)
