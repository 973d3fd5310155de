"""Two workers of one machine on one PostgreSQL: a client can't tell which of them answers, or that one has died."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from .commands import command
from .daemon import eventually
from .nodes import Workers
from .supervised import gone
from .tus import Tus, patch_head, pattern


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    with Workers() as it:
        it.start()
        eventually(lambda: len(it.rows()) == 2)
        yield it
        assert not it.complaints(), "\n".join(it.complaints())


def test_both_workers_take_requests_of_one_upload(two: Workers) -> None:
    data = pattern(2_000_000)
    one, other = two.by_worker().values()
    path = one.create(len(data))
    for number, at in enumerate(range(0, len(data), 500_000)):
        answer = (one, other)[number % 2].patch(path, at, data[at : at + 500_000])
        assert (answer.status, answer.offset) == (204, at + 500_000)
    for tus in (one, other):
        assert tus.content(path) == data


def test_lists_are_the_same_at_every_socket(two: Workers) -> None:
    with closing(Tus(two.port)) as tus:
        path = tus.create(3, None, b"abc")
    for name in ("admin.sock", "admin-1.sock", "admin-2.sock"):
        listed = two.admin(name).ask("GET", "/v1/uploads").document
        assert path.rpartition("/")[2] in {each["id"] for each in listed["uploads"]}
    shown = command("ls", "--run-dir", str(two.run_dir), cwd=two.home)
    assert path.rpartition("/")[2] in shown.stdout


def test_the_metrics_of_both_are_at_one_socket(two: Workers) -> None:
    said = two.admin().ask("GET", "/metrics").document
    assert 'resumable_workers{state="answered"} 2.0' in said
    for number in (1, 2):
        assert f'resumable_connections{{worker="{number}"}}' in said
    assert said.count("\nresumable_spool_free_bytes ") == 1
    assert "worker=" not in two.admin("admin-2.sock").ask("GET", "/metrics").document


def test_the_row_of_a_worker_that_was_killed_goes_at_once_and_another_comes(two: Workers) -> None:
    before = two.rows()
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: killed not in two.rows())
    assert eventually(lambda: len(two.rows()) == 2)
    assert gone(killed) and max(before) in two.rows()
    assert set(two.rows()) == set(two.children)
    assert two.by_worker()


def test_an_upload_goes_on_at_the_other_worker_when_its_own_was_killed_in_the_middle(two: Workers) -> None:
    data = pattern(3_000_000, 5)
    eventually(lambda: len(two.rows()) == 2)
    with closing(Tus(two.port)) as tus, closing(tus.wire()) as wire:
        path = tus.create(len(data), None, data[:1_000_000])
        wire.send(patch_head(path, 1_000_000, 2_000_000) + data[1_000_000:2_000_000])
        killed = eventually(two.keeper)
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: gone(killed))
        with closing(Tus(two.port)) as again:
            offset = again.offset(path)
            assert offset >= 1_000_000
            assert again.patch(path, offset, data[offset:]).status == 204
            assert again.content(path) == data
    assert eventually(lambda: len(two.rows()) == 2)


def test_a_stop_leaves_no_row_and_no_socket() -> None:
    with Workers() as it:
        it.start()
        assert eventually(lambda: len(it.rows()) == 2)
        assert it.stop() == 0
        assert it.rows() == {} and not list(it.run_dir.glob("*.sock"))
        assert not it.complaints()


def test_a_database_that_is_not_there_is_one_line() -> None:
    with Workers() as it:
        url = "postgresql://127.0.0.1:1/none"
        it.flags = tuple(url if each == it.database else each for each in it.flags)
        with pytest.raises(AssertionError, match="ended with status 1"):
            it.start()
        assert it.log.startswith("resumable: --catalog: ") and len(it.log.splitlines()) == 1
