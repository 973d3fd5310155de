"""Two nodes share the uploads: any request may come to either, and either may die or freeze at any moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from .daemon import eventually
from .nodes import Nodes, frozen
from .tus import Tus, check, checksum, holder, patch_head, pattern

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with Nodes(2) as both:
        yield both
        assert not both.complaints(), "\n".join(both.complaints())


@pytest.fixture
def here(nodes: Nodes) -> Tus:
    return nodes.tus[0]


@pytest.fixture
def there(nodes: Nodes) -> Tus:
    for node in nodes.daemons:
        if not node.alive:
            node.start()
    return nodes.tus[1]


def content(tus: Tus, path: str) -> bytes:
    answer = tus.get(path)
    assert answer.status == 200, answer
    return answer.body


def test_the_next_request_may_land_on_the_other_node(nodes: Nodes, here: Tus, there: Tus) -> None:
    data = pattern(3_000_000)
    path = here.create(len(data))
    for number, at in enumerate(range(0, len(data), 300_000)):
        tus = (here, there)[number % 2]
        assert tus.offset(path) == at
        answer = tus.patch(path, at, data[at : at + 300_000])
        assert (answer.status, answer.offset) == (204, at + 300_000)
    for tus in (here, there):
        assert tus.offset(path) == len(data)
        assert content(tus, path) == data
    file = nodes.file(path)
    assert eventually(file.exists) and file.read_bytes() == data


def test_a_small_file_in_one_request_is_one_regular_file(nodes: Nodes, here: Tus, there: Tus) -> None:
    data = pattern(4096, 1)
    path = here.create(len(data), body=data)
    assert nodes.file(path).read_bytes() == data
    assert there.offset(path) == 4096 and content(there, path) == data


def test_small_appends_alternate(nodes: Nodes, here: Tus, there: Tus) -> None:
    data = pattern(5000, 2)
    path = there.create(len(data))
    for at in range(0, 5000, 100):
        tus = (here, there)[at // 100 % 2]
        assert tus.patch(path, at, data[at : at + 100]).offset == at + 100
    assert content(here, path) == content(there, path) == data
    assert eventually(nodes.file(path).exists) and nodes.file(path).read_bytes() == data


def test_a_patch_elsewhere_wins_over_a_silent_keeper(here: Tus, there: Tus) -> None:
    data = pattern(400_000, 3)
    path = here.create(len(data))
    with holder(here, path, 0, len(data), data[:200_000]) as first:
        assert eventually(lambda: there.offset(path) == 200_000)
        answer = there.patch(path, 200_000, data[200_000:])
        assert (answer.status, answer.offset) == (204, 400_000)
        first.offer(data[200_000:])
        late = check("PATCH", first.answer())
        assert late.status in (409, 423), late
    assert content(here, path) == data


def test_a_frozen_keeper_is_passed_by_and_harms_nothing_when_it_wakes(nodes: Nodes, here: Tus, there: Tus) -> None:
    data = pattern(2_000_000, 4)
    path = here.create(len(data))
    with holder(here, path, 0, len(data), data[:1_000_000]) as first:
        assert eventually(lambda: there.offset(path) > 0)
        with frozen(nodes.daemons[0]):
            first.offer(data[1_000_000:1_500_000])
            at = there.offset(path)
            assert at <= 1_500_000
            other = pattern(len(data), 5)
            answer = there.patch(path, at, other[at:])
            assert (answer.status, answer.offset) == (204, len(data))
        first.offer(data[1_500_000:])
        late = check("PATCH", first.answer())
        assert late.status in (409, 423), late
    whole = data[:at] + other[at:]
    assert content(there, path) == whole == content(here, path)


def test_a_killed_keeper_s_upload_goes_on_at_once(nodes: Nodes, here: Tus, there: Tus) -> None:
    data = pattern(1_000_000, 6)
    path = here.create(len(data))
    with holder(here, path, 0, len(data), data[:600_000]):
        assert eventually(lambda: there.offset(path) == 600_000)
        nodes.daemons[0].kill()
        assert there.offset(path) == 600_000
        there.finish(path, data)
    nodes.daemons[0].start()
    assert content(here, path) == data


def test_of_eight_patches_at_one_offset_one_is_left(here: Tus, there: Tus) -> None:
    size = 300_000
    path = here.create(size)
    bodies = [bytes([65 + number]) * size for number in range(8)]
    answers: list[int] = []

    def send(number: int) -> None:
        client = Tus((here, there)[number % 2].port)
        answers.append(client.patch(path, 0, bodies[number]).status)
        client.close()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(answers) <= {204, 409, 423}, answers
    at = there.offset(path)
    if at < size:
        there.finish(path, bodies[0])
    found = content(here, path)
    assert found in bodies or (at < size and len(set(found[:at])) == 1)


def test_delete_ends_an_append_at_another_node(here: Tus, there: Tus) -> None:
    path = here.create(1_000_000)
    with holder(here, path, 0, 1_000_000, b"x" * 500_000) as first:
        assert there.delete(path).status == 204
        first.offer(b"x" * 500_000)
        late = check("PATCH", first.answer())
        assert late.status in (410, 423), late
    assert here.head(path).status == there.head(path).status == 410


def test_partials_from_both_nodes_become_one_file(nodes: Nodes, here: Tus, there: Tus) -> None:
    one, two = pattern(700_000, 7), pattern(10, 8)
    parts = [here.partial(one), there.partial(two)]
    path = there.concat(*parts)
    assert here.offset(path) == 700_010
    assert content(here, path) == one + two
    assert nodes.file(path).read_bytes() == one + two


def test_a_final_is_made_when_its_last_partial_finishes_elsewhere(here: Tus, there: Tus) -> None:
    data = pattern(200_000, 9)
    first = here.partial(data)
    second = here.create(len(data), {"Upload-Concat": "partial"})
    path = here.concat(first, second)
    there.finish(second, data)
    assert eventually(lambda: there.head(path).get("upload-offset") == str(2 * len(data)))
    assert content(here, path) == data + data


def test_a_checksum_is_verified_before_anything_counts(here: Tus, there: Tus) -> None:
    data = pattern(500_000, 10)
    path = here.create(len(data))
    wrong = here.patch(path, 0, data, {"Upload-Checksum": checksum("sha1", b"other")})
    assert wrong.status == 460
    assert there.offset(path) == 0
    right = there.patch(path, 0, data, {"Upload-Checksum": checksum("sha1", data)})
    assert right.status == 204
    assert content(here, path) == data


def test_a_deferred_length_may_be_told_to_the_other_node(here: Tus, there: Tus) -> None:
    data = pattern(150_000, 11)
    path = here.create()
    assert here.patch(path, 0, data[:100_000]).offset == 100_000
    answer = there.patch(path, 100_000, data[100_000:], {"Upload-Length": str(len(data))})
    assert (answer.status, answer.offset) == (204, len(data))
    assert content(here, path) == data


def test_a_body_that_is_cut_off_is_kept_and_told_elsewhere(here: Tus, there: Tus) -> None:
    data = pattern(300_000, 12)
    path = here.create(len(data))
    with here.wire() as wire:
        wire.send(patch_head(path, 0, len(data)) + data[:123_456])
    assert eventually(lambda: there.offset(path) == 123_456)
    there.finish(path, data)
    assert content(here, path) == data


def test_a_file_that_is_missing_is_noticed_and_the_upload_is_not_yet_lost(nodes: Nodes, here: Tus, there: Tus) -> None:
    """By the node that sweeps, whoever was asked for it. After an hour it is lost: tests/spool/test_spool_losses.py."""
    data = pattern(4096, 13)
    path = here.create(len(data), body=data)
    nodes.file(path).unlink()
    assert there.get(path).status == 503
    said = f"{nodes.file(path)} is missing, or lacks committed bytes; if it isn't back in an hour"
    assert eventually(lambda: sum(said in node.log for node in nodes.daemons)) == 1
    assert there.get(path).status == 503 and here.offset(path) == len(data)
    assert here.delete(path).status == 204
