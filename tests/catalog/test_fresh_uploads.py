"""A record that was just made is answered without a look at the disk, and never when it may be another by now."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from resumable.catalog.fresh_uploads import KEPT
from resumable.model.errors import CatalogUnavailable
from resumable.model.upload import Commit, GoneReason, Replica
from tests.catalog.contract import done, name, upload
from tests.catalog.doubles import Shelf


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


@pytest.fixture
def catalog(shelf):
    catalog = shelf.running()
    yield catalog
    catalog.stop()


CHANGES = {
    "begin": lambda catalog: catalog.begin(name(1), 0, 0, "boot", 10, 200.0),
    "commit": lambda catalog: catalog.commit(Commit(name(1), 0, 0, 400, 200.0)),
    "announce": lambda catalog: catalog.announce(name(1), "sha-256=:YQ==:"),
    "end": lambda catalog: catalog.end(name(1), GoneReason.TERMINATED, 200.0, ()),
}


def at_once(answer):
    return answer.called


def asked(shelf, answer):
    results = []
    answer.addBoth(results.append)
    shelf.flush()
    return results[0]


def recorded(shelf, catalog):
    return asked(shelf, catalog.get_many([name(1)])).get(name(1))


def test_an_upload_that_was_made_is_known_without_a_look(shelf, catalog):
    record = upload(1, metadata="name bmFtZQ==", owner="somebody", max_size=5000)
    asked(shelf, catalog.create(record, (), [Replica(name(1), "s3"), Replica(name(1), "copy", required=False)]))
    answer = catalog.get(name(1))
    assert at_once(answer)
    assert asked(shelf, answer) == recorded(shelf, catalog)


def test_it_is_unknown_until_it_is_durable(shelf, catalog):
    catalog.create(upload(1), ())
    assert not at_once(catalog.get(name(1)))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_is_on_its_way_ends_that(shelf, catalog, change):
    asked(shelf, catalog.create(upload(1), ()))
    CHANGES[change](catalog)
    answer = catalog.get(name(1))
    assert not at_once(answer)
    assert asked(shelf, answer) == recorded(shelf, catalog) != upload(1)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_comes_before_the_creation_is_answered_counts(shelf, catalog, change):
    catalog.create(upload(1), ())
    CHANGES[change](catalog)
    shelf.flush()
    assert asked(shelf, catalog.get(name(1))) == recorded(shelf, catalog) != upload(1)


def test_a_creation_that_was_refused_is_not_the_record(shelf, catalog):
    asked(shelf, catalog.create(done(upload(1)), ()))
    asked(shelf, catalog.create(upload(1, metadata="second"), ()))
    assert asked(shelf, catalog.get(name(1))) == done(upload(1))


def test_a_creation_that_failed_left_no_record(shelf, catalog):
    assert isinstance(asked(shelf, catalog.create(upload(1), (), through=lambda _: fail(OSError("no")))), Failure)
    assert asked(shelf, catalog.get(name(1))) is None


@pytest.mark.parametrize("record", [done(upload(1)), upload(1, concat="partial"), upload(1, offset=7)])
def test_others_may_change_a_record_that_is_more_than_begun(shelf, catalog, record):
    asked(shelf, catalog.create(record, ()))
    assert not at_once(catalog.get(name(1)))


def test_so_many_are_kept_the_latest_ones(shelf, catalog):
    for number in range(KEPT + 1):
        catalog.create(upload(number), ())
    shelf.flush()
    known = [at_once(catalog.get(name(number))) for number in (0, 1, KEPT)]
    assert known == [False, True, True]


def test_a_catalog_that_was_stopped_knows_none(shelf, catalog):
    asked(shelf, catalog.create(upload(1), ()))
    catalog.stop()
    answer: Deferred[object] = catalog.get(name(1))
    assert asked(shelf, answer).check(CatalogUnavailable)
