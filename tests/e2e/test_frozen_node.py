"""A node that stood still so long that another took it for dead ends when it wakes, and nothing it does late counts."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.waiting import long

from .daemon import Daemon, eventually
from .nodes import Nodes, frozen
from .supervised import gone
from .tus import Tus, holder, pattern

pytestmark = [pytest.mark.process, pytest.mark.slow]

#: Seconds: until it is declared dead, and some for a busy machine.
DEAD = 40


def workers(nodes: Nodes) -> set[int]:
    """The process ids of the workers that have a row."""
    with psycopg.connect(nodes.url, autocommit=True) as connection:
        return {pid for (pid,) in connection.execute("SELECT pid FROM workers").fetchall()}


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with Nodes(2) as both:
        yield both


def test_it_ends_with_one_line_and_commits_nothing(nodes: Nodes) -> None:
    here, there = nodes.tus
    sleeper, other = nodes.daemons
    assert sleeper.process is not None
    data = pattern(1_000_000, 1)
    path, free = here.create(len(data)), here.create(len(data))
    with (
        holder(here, path, 0, len(data), data[:600_000]) as first,
        holder(here, free, 0, len(data), data[:10]) as second,
    ):
        assert eventually(lambda: there.offset(path) == 600_000)
        with frozen(sleeper):
            first.offer(data[600_000:700_000])
            second.offer(data[10:])  # all of it: to commit that would finish the upload
            assert eventually(lambda: sleeper.process.pid not in workers(nodes), DEAD)
            at = there.offset(path)
            there.finish(path, data)
            late = there.offset(free)
        assert sleeper.wait() == 1
    assert there.content(path) == data and at == 600_000
    assert there.offset(free) == late < len(data)
    there.finish(free, data)
    assert there.content(free) == data
    said = [line for line in sleeper.log.splitlines() if "#critical" in line]
    assert len(said) == 1 and "taken for dead" in said[0], said
    assert not nodes.complaints()
    assert other.alive
    sleeper.start()
    with Tus(sleeper.port).wire() as _:
        pass
    assert Tus.content(here, path) == data


@long
def test_a_supervisor_starts_its_workers_anew(nodes: Nodes) -> None:
    """All of a machine stands still, as a virtual machine that is suspended."""
    several = Daemon(
        *("--catalog", nodes.url, "--run-dir", str(nodes.home / "several"), "--workers", "2"),
        upload_dir=nodes.upload_dir,
    )
    with several.start() as machine:
        assert machine.process is not None
        supervisor = machine.process.pid
        assert eventually(lambda: len(workers(nodes)) == 4)
        ours = children(supervisor)
        assert len(ours) == 2
        client = machine.attach(Tus(machine.port))
        data = pattern(300_000, 2)
        path = client.create(len(data), None, data[:100_000])
        os.killpg(supervisor, signal.SIGSTOP)
        try:
            assert eventually(lambda: not workers(nodes) & ours, DEAD)
            nodes.tus[0].finish(path, data)
        finally:
            os.killpg(supervisor, signal.SIGCONT)
        assert eventually(lambda: all(map(gone, ours)))
        assert eventually(lambda: len(children(supervisor)) == 2 and children(supervisor) <= workers(nodes), DEAD)
        client.close()
        assert client.content(path) == data
        assert machine.alive and len(re.findall(r"#critical.*taken for dead", machine.log)) == 2
        assert not machine.complaints()


def children(pid: int) -> set[int]:
    return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
