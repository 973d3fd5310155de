"""``resumable doctor`` for servers that share a database and a directory, as an operator runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.own_postgres import bouncer, bouncer_program
from tests.postgres import database

from .commands import findings, listen, looked
from .daemon import Daemon, eventually
from .nodes import Nodes
from .tus import pattern

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with Nodes(2) as both:
        both.tus[0].create(5000, None, pattern(5000))
        yield both
        assert not both.complaints(), "\n".join(both.complaints())


def test_before_the_first_start_nothing_is_made(tmp_path: Path) -> None:
    url = database()
    (tmp_path / "up").mkdir(mode=0o700)
    flags = ("--catalog", url, "--upload-dir", str(tmp_path / "up"), "--run-dir", str(tmp_path / "run"))
    found = looked(*listen(), *flags, cwd=tmp_path)
    assert {name for name, (level, *_) in found.items() if level != "ok"} == {"daemon", "public URL"}, found
    assert set(found) == {
        *("ports", "access", "hooks"),
        *("options", "permissions", "database", "workers", "shared directory", "daemon", "remotes", "public URL"),
    }
    assert list((tmp_path / "up").iterdir()) == []
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_beside_servers_it_asks_the_one_here_and_leaves_them_alone(nodes: Nodes) -> None:
    before = sorted(path.name for path in nodes.upload_dir.rglob("*"))
    found = looked(*nodes.daemons[0].arguments()[1:], *listen(), cwd=nodes.home)
    assert "2 run now, with the same options" in found["workers"][1]
    assert "it is the catalog's" in found["shared directory"][1]
    assert found["daemon"][1].startswith("it is ready")
    assert sorted(path.name for path in nodes.upload_dir.rglob("*")) == before
    assert nodes.tus[1].create(1)


def test_each_option_that_must_agree_is_named_at_the_start_of_the_one_that_differs_and_by_doctor(nodes: Nodes) -> None:
    tokens = nodes.home / "tokens"
    tokens.write_text(f"{'0123456789abcdef' * 2} ann\n")
    tokens.chmod(0o600)
    different = {
        "--base-path": "/files/other/",
        "--hook": "http://127.0.0.1:1/hook",
        "--guard": "http://127.0.0.1:1/guard",
        "--remote": "memory://other",
        "--auth-tokens": str(tokens),
        "--part-size": "16M",
        "--max-size": "1G",
        "--disable-extension": "concatenation",
    }
    flags = [each for pair in different.items() for each in pair]
    run = ("--run-dir", str(nodes.home / "other"))
    with Daemon("--catalog", nodes.url, *run, *flags, upload_dir=nodes.upload_dir) as other:
        other.start()
        for flag in different:
            assert eventually(lambda flag=flag: f"this worker and others disagree: {flag}: " in other.log)
        assert str(tokens) not in other.log and "0123456789abcdef" not in other.log
    found = findings(*nodes.daemons[0].arguments()[1:], *listen(), *flags, cwd=nodes.home)
    said = {each["what"].partition(":")[0]: each for each in found if each["check"] == "workers"}
    assert set(different) <= set(said)
    assert {each["level"] for each in said.values()} == {"bad"}
    assert all("same value" in each["advice"] for each in said.values())


def test_another_directory_or_another_database_than_theirs(nodes: Nodes, tmp_path: Path) -> None:
    run = ("--run-dir", str(tmp_path / "run"))
    (tmp_path / "empty").mkdir(mode=0o700)
    found = looked(*listen(), "--catalog", nodes.url, "--upload-dir", str(tmp_path / "empty"), *run, cwd=tmp_path)
    assert found["shared directory"][0] == "bad" and "Mount that" in (found["shared directory"][2] or "")
    found = looked(*listen(), "--catalog", database(), "--upload-dir", str(nodes.upload_dir), *run, cwd=tmp_path)
    assert found["shared directory"][0] == "bad" and "another catalog" in found["shared directory"][1]


def test_a_database_that_is_not_there_is_a_finding_and_the_rest_is_looked_at_too(tmp_path: Path) -> None:
    url = "postgresql://ann:hunter2@127.0.0.1:1/x"
    found = looked(*listen(), "--catalog", url, "--run-dir", str(tmp_path / "run"), cwd=tmp_path)
    level, what, advice = found["database"]
    assert level == "bad" and "Connection refused" in what and advice == "Start the server, or correct --catalog."
    assert "hunter2" not in str(found)
    assert found["options"][0] == found["shared directory"][0] == "ok"


@pytest.mark.skipif(bouncer_program() is None, reason="PgBouncer is not installed: apt-get install pgbouncer")
def test_a_pooler_that_shares_connections(tmp_path: Path) -> None:
    with bouncer(database(), "transaction") as url:
        found = looked(*listen(), "--catalog", url, "--run-dir", str(tmp_path / "run"), cwd=tmp_path)
    assert found["database"][0] == "bad" and "pool_mode = session" in (found["database"][2] or "")
