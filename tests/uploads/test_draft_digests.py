"""Uploads of the draft whose digest was announced, or is made: the end of the upload is where a request says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from resumable.model.upload import Upload
from resumable.protocol.digests import NONE, RequestDigests
from resumable.protocol.errors import DigestMismatch
from resumable.protocol.requests import Append
from resumable.uploads.digest_rules import DigestRules
from tests.uploads.digested import content, text, whole
from tests.uploads.fakes import FakeBody
from tests.uploads.harness import LONG, Answer, Server, pattern

SIZES = [0, 1, 5000, LONG, 3 * LONG]
KINDS: dict[str, Callable[[bytes], FakeBody]] = {"known": FakeBody.whole, "chunked": FakeBody.chunked}

in_every_size = pytest.mark.parametrize("size", SIZES)
of_every_kind = pytest.mark.parametrize("kind", KINDS)


def patch(
    server: Server, upload_id: str, offset: int, completes: bool, body: FakeBody, digests: RequestDigests = NONE
) -> Answer[Upload]:
    request = Append(offset, None, None, False, completes=completes, draft=True, digests=digests)
    return server.ask(server.uploads.append(upload_id, request, server._sent(body), server.by))


@in_every_size
@of_every_kind
@pytest.mark.parametrize("announced", [False, True])
def test_a_creation_that_completes_the_upload_is_finished_with_its_digest(
    serve: Callable[..., Server], size: int, kind: str, announced: bool
) -> None:
    server, data = serve(digests=None if announced else DigestRules("sha-256")), pattern(size)
    upload_id = server.draft_create(True, KINDS[kind](data), digests=whole(data) if announced else NONE).value.id
    row = server.row(upload_id)
    assert row.draft and row.finished and row.digest == text(data)
    assert server.uploads.digester.made == 0, "nothing is read once more"


@in_every_size
@of_every_kind
def test_one_with_other_bytes_than_announced_is_refused_with_where_to_cancel_it(
    server: Server, size: int, kind: str
) -> None:
    data = pattern(size)
    answer = server.draft_create(True, KINDS[kind](data), digests=whole(data + b"x"))
    assert isinstance(answer.error, DigestMismatch) and answer.cut is not None
    row = server.row(answer.cut.id)
    assert not row.finished and row.digest == text(data)
    again = patch(server, row.id, row.offset, True, FakeBody.whole(b""))
    assert isinstance(again.error, DigestMismatch)
    assert server.delete(row.id).done


@in_every_size
@of_every_kind
@pytest.mark.parametrize("with_bytes", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_bytes_of_several_requests_are_compared_when_one_completes_the_upload(
    server: Server, size: int, kind: str, with_bytes: bool, right: bool
) -> None:
    data = pattern(size + 1)
    upload_id = server.draft_create(False, data[:1], digests=whole(data if right else data + b"x")).value.id
    if with_bytes:
        last = patch(server, upload_id, 1, True, KINDS[kind](data[1:]))
    else:
        patch(server, upload_id, 1, False, KINDS[kind](data[1:])).value  # noqa: B018
        assert not server.row(upload_id).finished
        last = patch(server, upload_id, len(data), True, FakeBody.whole(b""))
    row = server.row(upload_id)
    assert row.finished is right
    if right:
        assert last.value.finished and row.digest == text(data)
    else:
        assert isinstance(last.error, DigestMismatch)
        again = patch(server, upload_id, row.offset, True, FakeBody.whole(b""))
        assert isinstance(again.error, DigestMismatch)


@in_every_size
@of_every_kind
def test_content_with_another_digest_is_not_kept(server: Server, size: int, kind: str) -> None:
    data = pattern(size)
    upload_id = server.draft_create(False, b"first", digests=content(b"first")).value.id
    assert isinstance(patch(server, upload_id, 5, False, KINDS[kind](data), content(b"other")).error, DigestMismatch)
    assert server.row(upload_id).offset == 5
    assert patch(server, upload_id, 5, True, KINDS[kind](data), content(data)).value.finished
