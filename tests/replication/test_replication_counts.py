"""An upload counts as stored once, when the last required remote has got it."""

from __future__ import annotations

from tests.replication.rig import parts


def test_an_upload_counts_once_however_many_remotes_have_it(make):
    rig = make({"a": parts(), "b": parts(), "c": parts()}, specs={"c": {"required": False}})
    ids = [rig.upload(size) for size in (1, 1000)]
    rig.settle(ids)
    assert rig.replication.stored == 2
