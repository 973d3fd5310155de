"""Servers without a disk on Azure and on Google: Azurite, and our strict fake of Cloud Storage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.waiting import long

from .clouds import CLOUDS
from .daemon import eventually
from .diskless import QUICK, Diskless, upload_id
from .stores import MIB
from .tus import pattern

pytestmark = [pytest.mark.process, long]


class OnACloud(Diskless):
    operations = None


@pytest.fixture(scope="module", params=CLOUDS)
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Diskless]:
    directory = tmp_path_factory.mktemp("cloud")
    with CLOUDS[request.param](directory) as store:
        flags = (*QUICK, "--expire-after", "6d", "--keep-partials", "0s")
        with OnACloud(store, 2, *flags, env=store.env) as running:
            yield running
            assert not running.complaints(), "\n".join(running.complaints())


def content(nodes: Diskless, path: str) -> bytes:
    nodes.whole(path)
    return nodes.store.content(nodes.prefix, upload_id(path))


def test_a_file_that_fits_a_part_is_one_request(nodes: Diskless) -> None:
    data = pattern(4096, 1)
    path = nodes.tus[0].create(len(data), None, data)
    assert content(nodes, path) == data
    assert nodes.tus[1].content(path) == data
    made = nodes.requests(path)
    assert made["Put Blob"] + made["Insert"] == 1
    assert made["Put Block"] + made["Compose"] + made["StartSession"] == 0


@pytest.mark.parametrize("size", [5 * MIB, 300_000, 70_000])
def test_pieces_that_go_round_robin_become_one_object(nodes: Diskless, size: int) -> None:
    data = pattern(7 * size + 5, 2)
    path = nodes.tus[0].create(len(data))
    for number, start in enumerate(range(0, len(data), size)):
        piece = data[start : start + size]
        answer = nodes.tus[number % 2].patch(path, start, piece)
        assert (answer.status, answer.get("upload-offset")) == (204, str(start + len(piece)))
        assert nodes.tus[(number + 1) % 2].offset(path) == start + len(piece)
    assert content(nodes, path) == data
    assert nodes.tus[1].content(path) == data
    nodes.pass_time()
    assert eventually(lambda: not [name for name in nodes.left() if upload_id(path) in name and ".tails/" in name])


@pytest.mark.parametrize("size", [700_000, 6 * MIB])
def test_partials_become_one_file(nodes: Diskless, size: int) -> None:
    contents = [pattern(size, 3), pattern(10, 4)]
    final = nodes.tus[1].concat(*(nodes.tus[at].partial(data) for at, data in enumerate(contents)))
    assert nodes.tus[0].content(final) == b"".join(contents)
    assert content(nodes, final) == b"".join(contents)


def test_an_upload_goes_on_elsewhere_when_its_node_is_killed(nodes: Diskless) -> None:
    data = pattern(12 * MIB, 5)
    path = nodes.tus[0].create(len(data))
    assert nodes.tus[0].patch(path, 0, data[: 6 * MIB]).status == 204
    nodes.nodes[0].stop_dead()
    try:
        assert nodes.tus[1].offset(path) == 6 * MIB
        assert nodes.tus[1].patch(path, 6 * MIB, data[6 * MIB :]).status == 204
        assert content(nodes, path) == data
    finally:
        nodes.tus[0].close()
        nodes.start()


def test_what_is_deleted_leaves_no_object(nodes: Diskless) -> None:
    data = pattern(6 * MIB, 6)
    path = nodes.tus[0].create(2 * len(data))
    assert nodes.tus[0].patch(path, 0, data).status == 204
    assert nodes.tus[1].delete(path).status == 204
    nodes.pass_time()
    assert eventually(lambda: not [name for name in nodes.store.objects(nodes.prefix) if upload_id(path) in name])
