"""Hooks choose an upload's remotes, and what it is called in them."""

from __future__ import annotations

import pytest

from resumable.model.upload import Upload
from tests.replication.rig import PART, parts, plain

KEY = "customers/7/invoice.pdf"


def create(rig, upload_id, length, *chosen):
    upload = Upload(upload_id, rig.wall(), rig.wall(), length)
    rig.ask(rig.catalog.create(upload, (), rig.replication.chosen(upload, *chosen)))
    rig.ask(rig.spool.put(upload_id, 0, []))
    rig.data[upload_id], rig.lengths[upload_id] = b"", length


@pytest.mark.parametrize("kind", [parts, plain])
@pytest.mark.parametrize("size", [PART // 2, 3 * PART])
def test_an_upload_has_the_key_that_it_was_given_also_after_a_restart(make, kind, size):
    rig = make({"a": kind()})
    upload_id = "9" * 32
    create(rig, upload_id, size, None, KEY)
    rig.append(upload_id, bytes(PART // 4))
    rig.advance(1)
    rig.kill()
    rig.start()
    rig.append(upload_id, bytes(size - PART // 4))
    rig.settle([upload_id])
    assert list(rig.stores["a"].objects) == [KEY]
    assert rig.stores["a"].objects[KEY].data == bytes(size)


def test_an_upload_goes_only_to_the_remotes_that_were_chosen(make):
    rig = make({"a": parts(), "b": parts(), "c": plain()})
    upload_id = "9" * 32
    create(rig, upload_id, 5, ["b", "c"])
    rig.append(upload_id, b"12345")
    for remote in "bc":
        rig.settle([upload_id], remote)
    assert [len(rig.stores[name].objects) for name in "abc"] == [0, 1, 1]
    assert rig.row(upload_id).stored_at is not None


def test_two_uploads_with_the_same_key_do_not_overwrite_each_other(make):
    rig = make({"a": parts()})
    for number, content in ((8, b"first"), (9, b"other")):
        create(rig, str(number) * 32, 5, None, KEY)
        rig.append(str(number) * 32, content)
        rig.advance(60)
    assert rig.stores["a"].objects[KEY].data == b"first"
