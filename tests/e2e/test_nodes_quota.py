"""Quotas hold over all nodes together."""

from __future__ import annotations

import threading

import psycopg
import pytest

from .daemon import eventually
from .nodes import Nodes
from .tus import Tus, check, patch_head, pattern

pytestmark = pytest.mark.process


def creations(tus: Tus, count: int, length: int) -> list[int]:
    return [tus.post(length).status for _ in range(count)]


def test_nodes_that_create_at_the_same_time_never_pass_a_quota_together() -> None:
    with Nodes(2, "--max-unfinished", "20", "--max-stored", "1M") as nodes:
        found: list[int] = []
        ones = [threading.Thread(target=lambda tus=tus: found.extend(creations(tus, 30, 10_000))) for tus in nodes.tus]
        for one in ones:
            one.start()
        for one in ones:
            one.join()
        assert sorted(set(found)) == [201, 429] and found.count(201) == 20
        assert not nodes.complaints()


def test_bytes_that_are_refused_in_an_upload_or_come_too_late_are_not_left() -> None:
    with Nodes(2, "--max-stored", "1M") as nodes:
        here, there = nodes.tus
        path = here.create(None)
        assert here.patch(path, 0, pattern(1_000_000)).status == 204
        assert [there.patch(path, 1_000_000, pattern(size)).status for size in (200_000, 65_000, 200_000)] == [507] * 3
        here.delete(path)
        path = here.create(700_000)
        with here.wire() as first:
            first.send(patch_head(path, 0, 700_000) + b"x" * 300_000)
            assert eventually(lambda: there.offset(path) == 300_000)
            assert there.patch(path, 300_000, b"y" * 400_000).status == 204
            first.offer(b"x" * 400_000)
            assert check("PATCH", first.answer("PATCH")).status in (409, 423)
        assert eventually(lambda: segment_files(nodes) <= named(nodes))
        assert not nodes.complaints()


def segment_files(nodes: Nodes) -> set[str]:
    return {str(each.relative_to(each.parents[1])) for each in nodes.upload_dir.rglob("*/segments/*/*")}


def named(nodes: Nodes) -> set[str]:
    with psycopg.connect(nodes.url) as connection:
        rows = connection.execute("SELECT name FROM segments UNION SELECT name FROM discarded").fetchall()
    return {name for (name,) in rows}


def test_bytes_of_a_deferred_length_count_whichever_node_takes_them() -> None:
    with Nodes(2, "--max-stored", "1M") as nodes:
        here, there = nodes.tus
        path = here.create(None)
        data = pattern(600_000)
        assert there.patch(path, 0, data).status == 204
        assert here.patch(path, 600_000, data).status == 507
        other = here.create(400_000)
        assert there.post(400_000).status == 507
        here.delete(path)
        assert there.post(400_000).status == 201
        assert other


def test_what_a_quota_refuses_leaves_no_bytes() -> None:
    with Nodes(1, "--max-stored", "100k", "--max-unfinished", "2") as nodes:
        (tus,) = nodes.tus
        data = pattern(40_000)
        assert [tus.post(len(data), None, data).status for _ in range(5)] == [201, 201, 507, 507, 507]
        assert [tus.post(20, None, b"x").status for _ in range(4)] == [201, 201, 429, 429]
        assert len([each for each in nodes.upload_dir.iterdir() if each.is_file()]) == 2
        assert len([each for each in nodes.upload_dir.rglob("*/segments/*/*") if each.is_file()]) == 2
        assert not nodes.complaints()
