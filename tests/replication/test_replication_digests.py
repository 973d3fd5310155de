"""An upload's digest goes with its copies, as far as it is known when they are begun."""

from __future__ import annotations

import pytest
from attrs import evolve

from resumable.model import keys
from resumable.model.upload import Upload
from resumable.replication.transfer import object_metadata
from tests.replication.rig import parts

ONE, OTHER = "sha-256=:YQ==:", "sha-256=:Yg==:"
UPLOAD = Upload("a", 1.0, 1.0, 10, metadata="filename YQ==")
DONE = evolve(UPLOAD, offset=10, finished_at=2.0)


@pytest.mark.parametrize(
    ("upload", "expected"),
    [
        (UPLOAD, None),
        (DONE, None),
        (evolve(DONE, digest=ONE), ONE),
        (evolve(UPLOAD, announced=ONE), ONE),  # it is compared before the object is made
        (evolve(DONE, announced=OTHER, digest=ONE), ONE),
        (evolve(DONE, announced=OTHER), None),  # it could not be compared
    ],
)
def test_the_digest_is_among_the_metadata_of_the_object(upload: Upload, expected: str | None) -> None:
    found = dict(object_metadata(upload))
    assert found.pop("filename") == b"a"
    assert found == ({} if expected is None else {"repr-digest": expected.encode()})


def test_the_remote_gets_it(make) -> None:
    rig = make({"a": parts(template=keys.parse("{metadata[repr-digest]}-{id}"))})
    upload = Upload("0" * 32, rig.wall(), rig.wall(), 5, digest=ONE)
    rig.ask(rig.catalog.create(upload, (), rig.replication.chosen(upload, drawn=True)))
    rig.ask(rig.spool.put(upload.id, 0, []))
    rig.data[upload.id], rig.lengths[upload.id] = b"", 5
    rig.append(upload.id, b"hello")
    rig.settle([upload.id])
    (key,) = rig.stores["a"].objects
    assert "YQ==" in key
