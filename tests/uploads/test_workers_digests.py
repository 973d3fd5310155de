"""Digests of uploads that several workers share: whichever has the last request compares, and one of them hashes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable.uploads.digest_rules import DigestRules
from resumable.uploads.other_workers import digest_claim
from tests.uploads.cluster_rig import Cluster, clusters
from tests.uploads.digested import text, whole
from tests.uploads.harness import pattern

DATA = pattern(150_000, 3)
CUT = 70_000
MADE = DigestRules("sha-256")


@pytest.fixture(params=["simulated", pytest.param("postgres", marks=pytest.mark.process)])
def cluster(directory: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Over a simulated catalog, and over a real one."""
    cluster = clusters(request.param)(directory)
    yield cluster
    cluster.bury()


def test_bytes_of_several_workers_are_compared_before_the_finish(cluster: Cluster) -> None:
    one, other = cluster.engine(), cluster.engine()
    upload_id = one.create(len(DATA), digests=whole(DATA)).value.id
    one.patch(upload_id, 0, DATA[:CUT]).value  # noqa: B018
    assert other.patch(upload_id, CUT, DATA[CUT:]).value.offset == len(DATA)
    assert one.row(upload_id).finished and one.row(upload_id).digest == text(DATA)


@pytest.mark.parametrize("cut", [0, CUT])
def test_the_wrong_bytes_are_refused_by_each(cluster: Cluster, cut: int) -> None:
    one, other = cluster.engine(), cluster.engine()
    upload_id = one.create(len(DATA), digests=whole(b"other")).value.id
    if cut:
        one.patch(upload_id, 0, DATA[:cut]).value  # noqa: B018
    assert other.patch(upload_id, cut, DATA[cut:]).status == 460
    for engine in (one, other):
        assert engine.head(upload_id).value.offset == len(DATA) - 1
        assert engine.patch(upload_id, len(DATA) - 1, DATA[-1:]).status == 460
    assert one.row(upload_id).digest == text(DATA)
    assert one.delete(upload_id).done


def test_a_digest_is_made_by_one_of_them(cluster: Cluster) -> None:
    one, other = cluster.engine(digests=MADE), cluster.engine(digests=MADE)
    upload_id = one.create(len(DATA)).value.id
    one.patch(upload_id, 0, DATA[:CUT]).value  # noqa: B018
    assert one.ask(other.context.others.claim(digest_claim(upload_id))).value is True
    assert one.patch(upload_id, CUT, DATA[CUT:]).value.offset == len(DATA)
    cluster.advance(1)
    assert one.row(upload_id).digest_due == "sha-256", "another one is at it"
    one.ask(other.context.others.drop(digest_claim(upload_id))).value  # noqa: B018
    for engine in (one, other):
        engine.uploads.digester.sweep()
        cluster.advance(1)
    assert one.row(upload_id).digest == text(DATA)
    assert one.uploads.digester.made + other.uploads.digester.made == 1
