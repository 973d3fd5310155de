"""Bytes that can't be read here and now, where several processes share them: the client comes back, nothing is lost."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from twisted.internet.defer import fail, succeed

from resumable.model.upload import GoneReason
from resumable.protocol.errors import Gone, Unavailable
from resumable.spool.datafile import NotReadable
from resumable.spool.placed_files import PlaceSettings, parse
from tests.uploads.harness import PLACED, UPLOADS


@pytest.fixture
def upload_id(server):
    return server.upload(b"hello")


def missing(upload_id):
    return fail(FileNotFoundError(errno.ENOENT, "gone", upload_id))


def test_a_download_of_bytes_that_can_t_be_read_yet_is_answered_503_and_the_upload_stays(server, upload_id):
    server.spool.reader = lambda upload_id: fail(NotReadable(upload_id, "a segment is short"))
    answer = server.ask(server.uploads.read(upload_id))
    assert isinstance(answer.error, Unavailable) and "yet" in answer.error.detail
    assert server.row(upload_id).gone is None


def test_so_is_one_whose_data_is_not_found_where_that_proves_nothing(server, upload_id):
    server.spool.reader = missing
    server.spool.check = lambda upload: succeed(None)
    assert isinstance(server.ask(server.uploads.read(upload_id)).error, Unavailable)
    assert server.row(upload_id).gone is None


def test_where_its_file_is_proven_to_be_missing_it_is_lost(server, upload_id):
    server.disk.unlink(server.spool.path(upload_id))
    assert isinstance(server.ask(server.uploads.read(upload_id)).error, Gone)
    assert server.row(upload_id).gone is GoneReason.LOST


def test_a_look_at_the_offset_asks_the_spool_whether_its_bytes_are_there(server, upload_id):
    checked = []
    server.spool.check = lambda upload: checked.append(upload.offset) or succeed(None)
    assert server.head(upload_id).value.offset == 5 and checked == [5]


def test_the_file_of_an_upload_that_is_no_one_file_yet_is_not_placed(serve, machine):
    machine.disk.make_directory(UPLOADS)
    machine.disk.make_directory(PLACED)
    server = serve(placing=PlaceSettings(Path(PLACED), parse("{id}")))
    server.spool.whole = lambda upload_ids: succeed(())
    upload_id = server.upload(b"hello")
    server.pump()
    assert not server.row(upload_id).placed and server.context.counts.not_placed == 0
    del server.spool.whole
    server.context.place_planned(upload_id)
    server.pump()
    assert server.row(upload_id).placed
