"""How many requests the store gets of nodes without disks: with the default part size, as the goals say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.remotes.s3_servers import found
from tests.waiting import long

from .daemon import eventually
from .diskless import Diskless, diskless
from .stores import MIB
from .tus import Tus, pattern

pytestmark = [pytest.mark.process, pytest.mark.slow]

DATA = pattern(50 * MIB, 1)
PIECE = 256 << 10


def three(tmp_path_factory: pytest.TempPathFactory, **options: str) -> Iterator[Diskless]:
    with diskless(tmp_path_factory.mktemp("store"), 3, **options) as nodes:
        for node in nodes.nodes:
            eventually(lambda node=node: "spool ready" in node.log)
        yield nodes


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Diskless]:
    yield from three(tmp_path_factory, **({} if found("versitygw") else {"dialect": "minio"}))


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Diskless]:
    """A store that demands equal parts."""
    yield from three(tmp_path_factory, dialect="r2", region="us-east-1")


def sent(nodes: Diskless, size: int, count: int) -> Counter[str]:
    """The requests for `DATA` in PATCHes of ``size`` bytes to the first ``count`` nodes in turn."""
    nodes.fresh()
    path = nodes.tus[0].create(len(DATA))
    for number, at in enumerate(range(0, len(DATA), size)):
        assert nodes.tus[number % count].patch(path, at, DATA[at : at + size]).status == 204
    nodes.whole(path)
    nodes.pass_time()
    assert eventually(lambda: nodes.ask("SELECT name FROM discarded") == [])
    counted = nodes.requests(path)
    assert nodes.tus[2].content(path) == DATA
    print(f"{len(DATA) // size} PATCHes at {count} nodes: {dict(counted)}")
    return counted


@pytest.mark.parametrize("count", [pytest.param(1, marks=long), 3])
def test_200_patches_of_256_kib(count: int, nodes: Diskless) -> None:
    counted = sent(nodes, PIECE, count)
    assert counted.total() <= 12, counted


def test_10_patches_of_5_mib_round_robin(nodes: Diskless) -> None:
    counted = sent(nodes, 5 * MIB, 3)
    assert counted.total() <= 12, counted


@long
def test_10_patches_of_5_mib_round_robin_where_parts_are_equal(equal: Diskless) -> None:
    counted = sent(equal, 5 * MIB, 3)
    assert counted.total() <= 30, counted


@pytest.mark.parametrize("size", [4096, 8 * MIB])
def test_a_file_in_one_request_is_one_request(size: int, nodes: Diskless) -> None:
    data = DATA[:size]
    nodes.fresh()
    with_creation = nodes.tus[0].create(size, body=data)
    nodes.whole(with_creation)
    assert nodes.requests(with_creation) == {"PutObject": 1}
    nodes.fresh()
    path = nodes.tus[1].create(size)
    assert nodes.tus[2].patch(path, 0, data).status == 204
    nodes.whole(path)
    assert nodes.requests(path) == {"PutObject": 1}
    assert nodes.tus[0].content(path) == nodes.tus[1].content(with_creation) == data


def test_requests_without_bytes_ask_the_store_nothing(
    nodes: Diskless,
) -> None:
    nodes.fresh()
    tus: Tus = nodes.tus[0]
    path = tus.create(10 * MIB)
    tus.offset(path)
    assert tus.get(f"{path}/status").status == 200
    assert tus.delete(path).status == 204
    assert nodes.requests(path).total() == 0
