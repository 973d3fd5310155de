"""Three nodes without disks: any request may come to any of them, and all that was acknowledged is in the store."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest

from .daemon import eventually
from .diskless import QUICK, SHORT, Diskless, diskless, upload_id
from .hook_server import HookServer
from .stores import MIB
from .tus import Tus, check, checksum, head_bytes, holder, metadata, patch_head, pattern
from .wire import Answer

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def hook() -> Iterator[HookServer]:
    with HookServer() as server:
        yield server


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, hook: HookServer) -> Iterator[Diskless]:
    with diskless(tmp_path_factory.mktemp("store"), 3, *QUICK, *SHORT, "--hook", hook.url) as three:
        yield three


@pytest.fixture
def tus(nodes: Diskless) -> Iterator[list[Tus]]:
    """A client of each; nothing is wrong when the test begins."""
    nodes.start()
    nodes.fresh()
    yield nodes.tus
    nodes.proxy.up()
    nodes.proxy.calm()


def get(tus: Tus, path: str, **fields: str) -> Answer:
    with tus.wire() as wire:
        given = {"Tus-Resumable": None, "Connection": "close", **fields}
        return wire.send(head_bytes("GET", path, given)).answer()


def test_the_next_request_may_land_on_any_node(nodes: Diskless, tus: list[Tus]) -> None:
    """Parts, pieces in rows, and pieces that are objects."""
    data = pattern(17 * MIB + 3)
    path = tus[0].create(len(data))
    at, steps = 0, (70_000, 3 * MIB, 200_000, 4 * MIB, 1, 6 * MIB, 300_000)
    while at < len(data):
        for number, step in enumerate(steps):
            client = tus[number % 3]
            assert client.offset(path) == at
            answer = client.patch(path, at, data[at : at + step])
            at = min(at + step, len(data))
            assert (answer.status, answer.offset) == (204, at)
            if at == len(data):
                break
    for client in tus:
        assert client.content(path) == data
    assert nodes.store.content(nodes.prefix, upload_id(path)) == data


def test_small_files_and_empty_ones_are_one_object(nodes: Diskless, tus: list[Tus]) -> None:
    small, empty = tus[0].create(4096, body=pattern(4096, 1)), tus[1].create(0)
    assert tus[2].content(small) == pattern(4096, 1)
    nodes.whole(empty)
    assert tus[0].content(empty) == b""
    objects = nodes.store.objects(nodes.prefix)
    assert objects[upload_id(small)] == 4096 and objects[upload_id(empty)] == 0


def test_small_appends_alternate(tus: list[Tus]) -> None:
    data = pattern(3000, 2)
    path = tus[2].create(len(data))
    for at in range(0, len(data), 100):
        assert tus[at // 100 % 3].patch(path, at, data[at : at + 100]).offset == at + 100
    assert tus[0].content(path) == data


def test_a_body_that_is_cut_off_is_kept_and_told_elsewhere(tus: list[Tus]) -> None:
    data = pattern(7 * MIB, 3)
    path = tus[0].create(len(data))
    with tus[0].wire() as wire:
        wire.send(patch_head(path, 0, len(data)) + data[: 6 * MIB + 7])
    assert eventually(lambda: tus[1].offset(path) == 6 * MIB + 7)
    tus[1].finish(path, data)
    assert tus[2].content(path) == data


def test_a_patch_elsewhere_wins_over_a_silent_keeper(tus: list[Tus]) -> None:
    data = pattern(2 * MIB, 4)
    path = tus[0].create(len(data))
    with holder(tus[0], path, 0, len(data), data[:MIB]) as first:
        assert eventually(lambda: tus[1].offset(path) == MIB)
        answer = tus[1].patch(path, MIB, data[MIB:])
        assert (answer.status, answer.offset) == (204, len(data))
        first.offer(data[MIB:])
        assert check("PATCH", first.answer()).status in (409, 423)
    assert tus[0].content(path) == data


def test_a_checksum_is_verified_before_anything_counts(tus: list[Tus]) -> None:
    data = pattern(6 * MIB, 5)
    path = tus[0].create(len(data))
    wrong = tus[0].patch(path, 0, data, {"Upload-Checksum": checksum("sha1", b"other")})
    assert wrong.status == 460 and tus[1].offset(path) == 0
    assert tus[1].patch(path, 0, data, {"Upload-Checksum": checksum("sha1", data)}).status == 204
    assert tus[2].content(path) == data


def test_a_deferred_length_may_be_told_to_another_node(tus: list[Tus]) -> None:
    data = pattern(6 * MIB, 6)
    path = tus[0].create()
    assert tus[0].patch(path, 0, data[: 3 * MIB]).offset == 3 * MIB
    answer = tus[1].patch(path, 3 * MIB, data[3 * MIB :], {"Upload-Length": str(len(data))})
    assert (answer.status, answer.offset) == (204, len(data))
    assert tus[2].content(path) == data


def test_a_length_that_is_told_when_all_bytes_are_there_finishes_it(tus: list[Tus]) -> None:
    data = pattern(400_000, 7)
    path = tus[0].create()
    assert tus[0].patch(path, 0, data).offset == len(data)
    assert tus[1].patch(path, len(data), b"", {"Upload-Length": str(len(data))}).status == 204
    assert tus[2].content(path) == data


def test_ranges_are_read_from_the_object(tus: list[Tus]) -> None:
    data = pattern(11 * MIB, 8)
    path = tus[0].create(len(data), {"Upload-Metadata": metadata(filename="a b.bin")}, data)
    assert tus[1].content(path) == data
    for asked, start, end in (("bytes=0-0", 0, 1), (f"bytes={5 * MIB - 9}-{5 * MIB + 9}", 5 * MIB - 9, 5 * MIB + 10),
                              ("bytes=-7", len(data) - 7, len(data))):  # fmt: skip
        answer = get(tus[2], path, Range=asked)
        assert (answer.status, answer.body) == (206, data[start:end])
        assert answer["content-range"] == f"bytes {start}-{end - 1}/{len(data)}"
    assert get(tus[2], path, Range=f"bytes={len(data)}-").status == 416
    assert "a b.bin" in get(tus[0], path)["content-disposition"]


@pytest.mark.parametrize("sizes", [(700_000, 10), pytest.param((6 * MIB, 5 * MIB + 1, 3), id="inside-the-store")])
def test_partials_from_all_nodes_become_one_file(sizes: tuple[int, ...], nodes: Diskless, tus: list[Tus]) -> None:
    contents = [pattern(size, 20 + size % 7) for size in sizes]
    paths = [tus[number % 3].partial(data) for number, data in enumerate(contents)]
    final = tus[1].concat(*paths)
    assert tus[2].content(final) == b"".join(contents)
    assert nodes.store.content(nodes.prefix, upload_id(final)) == b"".join(contents)
    if sizes[0] > 5 * MIB:
        assert nodes.requests(final)["UploadPartCopy"] >= 1


def test_a_final_is_made_when_its_last_partial_finishes_elsewhere(tus: list[Tus]) -> None:
    data = pattern(200_000, 9)
    first, second = tus[0].partial(data), tus[0].create(len(data), {"Upload-Concat": "partial"})
    final = tus[1].concat(first, second)
    tus[2].finish(second, data)
    assert eventually(lambda: tus[0].head(final).get("upload-offset") == str(2 * len(data)))
    assert tus[0].content(final) == data + data


def test_finished_is_told_when_the_object_is_there(nodes: Diskless, tus: list[Tus], hook: HookServer) -> None:
    data = pattern(6 * MIB, 10)
    nodes.proxy.trouble("CompleteMultipartUpload", "hold")
    path = tus[0].create(len(data), None, data)
    nodes.proxy.wait_for(1)
    assert tus[1].offset(path) == len(data)
    assert hook.of(upload_id(path)) in ([], ["created"])
    assert upload_id(path) not in nodes.store.objects(nodes.prefix)
    nodes.proxy.calm()
    assert eventually(lambda: len(hook.of(upload_id(path))) == 3)
    assert hook.of(upload_id(path)) == ["created", "finished", "stored"]
    assert tus[2].content(path) == data


def test_delete_ends_an_append_at_another_node(tus: list[Tus]) -> None:
    path = tus[0].create(1_000_000)
    with holder(tus[0], path, 0, 1_000_000, b"x" * 500_000) as first:
        assert tus[1].delete(path).status == 204
        first.offer(b"x" * 500_000)
        assert check("PATCH", first.answer()).status in (410, 423)
    assert [each.head(path).status for each in tus] == [410, 410, 410]


def test_while_the_store_is_down_appends_are_503_and_nothing_is_lost(nodes: Diskless, tus: list[Tus]) -> None:
    data = pattern(8 * MIB, 11)
    path, small = tus[0].create(len(data)), tus[0].create(2000)
    assert tus[0].patch(path, 0, data[:MIB]).status == 204
    nodes.proxy.down()
    answer = tus[1].patch(path, MIB, data[MIB : 3 * MIB])
    assert answer.status == 503 and answer["retry-after"]
    assert [each.offset(path) for each in tus] == [MIB, MIB, MIB]
    assert tus[2].patch(small, 0, pattern(1000, 12)).status == 204, "a piece in a row needs no store"
    assert tus[0].head(tus[1].create(10)).status == 200
    nodes.proxy.up()
    tus[2].finish(path, data)
    tus[1].finish(small, pattern(1000, 12) + pattern(1000, 13))
    assert tus[0].content(path) == data
    assert tus[0].content(small) == pattern(1000, 12) + pattern(1000, 13)


def test_what_was_finished_while_the_store_was_down_becomes_an_object_afterwards(
    nodes: Diskless, tus: list[Tus]
) -> None:
    data = pattern(150_000, 14)
    path = tus[0].create(len(data))
    assert tus[0].patch(path, 0, data[:100_000]).status == 204
    nodes.proxy.down()
    assert tus[1].patch(path, 100_000, data[100_000:]).offset == len(data)
    assert get(tus[1], path).status == 503
    nodes.proxy.up()
    nodes.whole(path)
    assert tus[2].content(path) == data


def test_nothing_is_on_a_node_s_disk_and_nothing_is_missed_of_it(nodes: Diskless, tus: list[Tus]) -> None:
    """All nodes are killed at once, and come again on other machines."""
    data = pattern(9 * MIB, 17)
    path, done = tus[0].create(len(data)), tus[1].create(4096, body=data[:4096])
    assert tus[0].patch(path, 0, data[: 3 * MIB]).status == 204
    assert tus[1].patch(path, 3 * MIB, data[3 * MIB : 3 * MIB + 1000]).status == 204
    for node in nodes.nodes:
        files = [each for each in node.home.rglob("*") if each.is_file() and each != node.home / "daemon.log"]
        assert sum(each.stat().st_size for each in files) < 100_000, files
        assert not any(node.upload_dir.rglob("*"))
        node.kill()
        assert not node.complaints()
        node.lose_disk()
    nodes.start()
    assert [each.offset(path) for each in tus] == [3 * MIB + 1000] * 3
    tus[2].finish(path, data)
    assert tus[1].content(path) == data and tus[0].content(done) == data[:4096]


def test_delete_and_expiry_leave_nothing_under_the_prefix(nodes: Diskless, tus: list[Tus]) -> None:
    """All that the tests before have made, too, but for tails of appends that were refused: a sweep finds these a day
    later."""
    refused = {each for each in nodes.left() if each.startswith(".tails/")}
    data = pattern(13 * MIB, 18)

    def left() -> list[str]:
        return [each for each in nodes.left() if each not in refused]

    unfinished = tus[0].create(len(data))
    for number, at in enumerate((0, 6 * MIB, 9 * MIB)):
        assert tus[number].patch(unfinished, at, data[at : (6 * MIB, 9 * MIB, 9 * MIB + 9)[number]]).status == 204
    abandoned = tus[1].create(len(data), None, data[: 8 * MIB])
    parts = [tus[2].partial(data[: 5 * MIB]), tus[1].partial(data[5 * MIB :])]
    final = tus[2].concat(*parts)
    assert tus[0].content(final) == data
    assert nodes.store.multiparts(nodes.prefix)
    for (each,) in nodes.ask("SELECT id FROM uploads WHERE gone IS NULL AND NOT id = %s", upload_id(abandoned)):
        assert tus[0].delete(f"/files/{each}").status in (204, 404, 410)
    nodes.expire(abandoned)
    assert eventually(lambda: nodes.ask("SELECT id FROM uploads WHERE gone IS NULL") == [])

    def nothing() -> bool:
        nodes.pass_time()
        return not left()

    try:
        assert eventually(nothing, 60)
    except AssertionError:
        rows = [
            nodes.ask(
                "SELECT id, length, gone, gone_at, on_disk, whole, multipart, concat FROM uploads WHERE id = %s",
                each.removeprefix(".tails/").removeprefix(".partials/").partition("/")[0],
            )
            for each in left()
        ]
        raise AssertionError(f"left: {left()}, {rows}") from None
    assert [each.head(abandoned).status for each in tus] == [410, 410, 410]


def test_a_download_is_redirected_to_the_store(tmp_path_factory: pytest.TempPathFactory, nodes: Diskless) -> None:
    data = pattern(6 * MIB, 19)
    nodes.fresh()
    path = nodes.tus[0].create(len(data), None, data)
    nodes.whole(path)
    node = nodes.nodes[2]
    assert node.stop() == 0
    flags, node.flags = node.flags, (*node.flags, "--download-from-remote", "redirect")
    try:
        answer = get(Tus(node.start().port), path)
        assert answer.status == 307
        with urlopen(Request(answer["location"], headers={"Range": "bytes=3-9"})) as found:
            assert (found.status, found.read()) == (206, data[3:10])
    finally:
        node.flags = flags
