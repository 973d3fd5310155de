"""A server that was killed and runs again: it knows that its workers from before are dead, and nobody has to wait."""

from __future__ import annotations

import psycopg
import pytest

from .daemon import Daemon, eventually
from .hook_server import HookServer
from .nodes import Nodes, Workers
from .supervised import gone
from .tus import Tus

pytestmark = pytest.mark.process

DELIVERERS = "SELECT holder FROM claims WHERE holder IS NOT NULL AND name LIKE 'hook%'"


def asked(url: str, statement: str) -> set[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        return {str(row[0]) for row in connection.execute(statement).fetchall()}


def killed_with_an_event_left(server: Daemon, client: Tus, url: str, hook: HookServer) -> tuple[str, set[str]]:
    """The upload whose event waits, and the workers that are dead, but will never look so by the time."""
    hook.die()
    before = asked(url, "SELECT id FROM workers")
    upload = client.create(3, None, b"abc").rpartition("/")[2]
    eventually(lambda: asked(url, DELIVERERS) & before)
    server.kill()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE workers SET seen_at = seen_at + 1000000")
    hook.start()
    return upload, before


def takes_up(server: Daemon, url: str, hook: HookServer, upload: str, dead: set[str]) -> None:
    """It delivers what they have left, under claims of its own."""
    server.start()
    assert eventually(lambda: "finished" in str(hook.of(upload)))
    assert eventually(lambda: not asked(url, "SELECT id FROM workers") & dead)
    assert not asked(url, DELIVERERS) & dead
    assert "gave no sign" not in server.log and server.log.count("which was here before, is dead") == len(dead)
    assert not server.complaints()


def test_a_node_that_was_killed_knows_it_and_leaves_the_workers_of_other_run_directories_alone() -> None:
    with HookServer() as hook, Nodes(1, "--hook", hook.url) as nodes, Nodes(1, "--hook", hook.url) as others:
        node, other = nodes.daemons[0], others.daemons[0]
        other.stop()
        upload, dead = killed_with_an_event_left(node, nodes.tus[0], nodes.url, hook)
        other.flags, other.upload_dir = (*other.flags, "--catalog", nodes.url), nodes.upload_dir
        other.start()
        assert dead <= asked(nodes.url, "SELECT id FROM workers")
        takes_up(node, nodes.url, hook, upload, dead)
        assert other.alive and len(asked(nodes.url, "SELECT id FROM workers")) == 2


def test_a_machine_of_several_workers_knows_it_when_all_of_them_were_killed() -> None:
    with HookServer() as hook, Workers("--hook", hook.url) as machine:
        machine.start()
        eventually(lambda: len(machine.rows()) == 2)
        processes = list(machine.rows())
        client = machine.attach(Tus(machine.port))
        upload, dead = killed_with_an_event_left(machine, client, machine.database, hook)
        assert eventually(lambda: all(map(gone, processes)))
        takes_up(machine, machine.database, hook, upload, dead)
