"""Servers without an upload directory: how they start, what is refused in one line, what readiness and doctor say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable.cli.admin_client import AdminLine
from tests.postgres import database
from tests.waiting import long

from .commands import ask, command, listen, looked, refuse
from .daemon import eventually, free_port, run_twistd
from .diskless import QUICK, Diskless, Node, diskless
from .nodes import Nodes
from .stores import CREDENTIALS, MIB, Store, real_store
from .tus import Tus, pattern

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with real_store(tmp_path_factory.mktemp("store"), "moto") as running:
        yield running


@pytest.fixture(scope="module")
def nodes(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Diskless]:
    """After the other store: moto forgets all that it has when another one is started."""
    with diskless(tmp_path_factory.mktemp("nodes"), 1, *QUICK) as running:
        yield running


def url_of(store: Store, prefix: str, **options: str) -> str:
    return store.remote(store.url, prefix, **options)


def measured(node: Node) -> dict[str, float]:
    said: str = AdminLine(f"unix:{node.run_dir / 'admin.sock'}").ask("GET", "/metrics").document
    lines = (line.rpartition(" ") for line in said.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def refused(cwd: Path, *flags: str) -> str:
    port = ("--listen", f"tcp:{free_port()}:interface=127.0.0.1")
    return refuse(*port, "--run-dir", str(cwd / "run"), *flags, cwd=cwd, env=CREDENTIALS)


def wrong(node: Node) -> dict[str, str]:
    told: dict[str, str] = AdminLine(f"unix:{node.run_dir / 'admin.sock'}").ask("GET", "/readyz").document["wrong"]
    return told


# The start


def test_nothing_is_made_but_the_run_directory(nodes: Diskless) -> None:
    data = pattern(300_000, 1)
    path = nodes.tus[0].create(len(data), None, data)
    assert nodes.tus[0].content(path) == data
    nodes.whole(path)
    (node,) = nodes.nodes
    told = AdminLine(f"unix:{node.run_dir / 'admin.sock'}").ask("GET", "/v1/status").document
    assert told["spool"]["reserve"] == 0 < told["spool"]["free"]
    values = measured(node)
    assert values["resumable_spool_up"] == 1 and values["resumable_scratch_used_bytes"] == 0
    assert values["resumable_scratch_limit_bytes"] == 768 * MIB
    assert not (node.home / "uploads" / ".resumable").exists() and not list(node.home.rglob("*marker*"))
    assert {each.name for each in node.run_dir.iterdir()} == {"admin.sock", "lock", "scratch"}
    assert list((node.run_dir / "scratch").iterdir()) == []
    assert nodes.store.content(nodes.prefix, path.rpartition("/")[2]) == data
    assert eventually(lambda: "spool ready" in node.log)


def test_another_spool_or_a_directory_is_refused_for_this_catalog(nodes: Diskless, tmp_path: Path) -> None:
    catalog = ("--catalog", nodes.url)
    other = refused(tmp_path, *catalog, "--spool", url_of(nodes.store, "elsewhere"))
    assert f"are in s3://bucket/{nodes.prefix}, not in s3://bucket/elsewhere" in other
    assert "correct --spool" in other
    assert "name it with --spool" in refused(tmp_path, *catalog)
    assert not (tmp_path / "uploads" / ".resumable" / "marker").exists()


def test_a_spool_is_refused_for_a_catalog_with_a_directory(store: Store, tmp_path: Path) -> None:
    with Nodes(1) as shared:
        said = refused(tmp_path, "--catalog", shared.url, "--spool", url_of(store, "a"))
        assert "in an upload directory: leave out --spool" in said
        assert shared.tus[0].create(3, None, b"abc")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--scratch-size", "31M"], "--scratch-size 31M is too small: it must hold 4 parts of 8M;"),
        (["--part-size", "512M"], "--scratch-size 1G is too small"),
    ],
)
def test_a_scratch_that_is_too_small(flags: list[str], says: str, store: Store, tmp_path: Path) -> None:
    assert says in refused(tmp_path, "--catalog", database(), "--spool", url_of(store, "a"), *flags)


def test_azure_and_uploads_that_live_longer_than_its_blocks(tmp_path: Path) -> None:
    said = refused(tmp_path, "--catalog", database(), "--spool", "az://container/x?account=someone")
    assert "--expire-after 6d or less" in said


def test_what_the_command_line_refuses_is_one_line(tmp_path: Path) -> None:
    done = run_twistd("-n", "--pidfile=", "resumable", "--spool", "s3://bucket", cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    *_, said = (done.stdout + done.stderr).strip().splitlines()
    assert said == ("resumable: --spool needs --catalog postgresql://...: with SQLite, uploads are in --upload-dir")


@long
def test_several_workers_share_the_run_directory(store: Store, tmp_path: Path) -> None:
    data = pattern(6 * MIB, 3)
    spool = ("--catalog", database(), "--spool", url_of(store, "workers"), *QUICK)
    with Node(*spool, "--workers", "2", env=CREDENTIALS) as node:
        node.start()
        here, there = node.attach(Tus(node.port)), node.attach(Tus(node.port))
        path = here.create(len(data))
        assert here.patch(path, 0, data[: 2 * MIB]).offset == 2 * MIB
        there.finish(path, data)
        assert here.content(path) == data
        assert not node.complaints()


# Later


def test_an_object_that_somebody_has_removed_is_404_and_told_of_once(nodes: Diskless) -> None:
    (node,), (client,) = nodes.nodes, nodes.tus
    path = client.create(300_000, None, pattern(300_000, 5))
    nodes.whole(path)
    key = path.rpartition("/")[2]
    nodes.store.remove(nodes.prefix, key)
    assert [client.get(path).status for _ in range(2)] == [404, 404]
    assert client.head(path).status == 200
    assert node.log.count(f"the store has lost the object {nodes.prefix}/{key} of a finished upload") == 1
    assert measured(node)["resumable_spool_lost_total"] == 1


@long
def test_a_store_that_is_away(store: Store) -> None:
    """Appends are answered 503, readiness says so, and all goes on when it is back."""
    data = pattern(200_000, 2)
    with Diskless(store, 1, *QUICK) as nodes:
        (node,), (client,) = nodes.nodes, nodes.tus
        path = client.create(10 * MIB)
        assert client.patch(path, 0, data).offset == len(data)
        nodes.proxy.down()
        assert eventually(lambda: "the object store can't be used" in wrong(node).get("directory", ""))
        assert ask(node, "GET", "/readyz")[0] == 503
        assert measured(node)["resumable_spool_up"] == 0
        assert ask(node, "GET", "/healthz")[0] == 200
        assert client.offset(path) == len(data)
        answer = client.patch(path, len(data), pattern(6 * MIB, 4))
        assert answer.status == 503 and int(answer["retry-after"]) > 0
        nodes.proxy.up()
        assert eventually(lambda: wrong(node) == {})
        assert client.offset(path) >= len(data)


# Before


@long
def test_check_tries_the_spool(nodes: Diskless, tmp_path: Path) -> None:
    flags = ("--catalog", nodes.url, "--check", "--spool")
    done = run_twistd("-n", "--pidfile=", "resumable", *flags, nodes.nodes[0].flags[3], cwd=tmp_path, env=CREDENTIALS)
    assert done.returncode == 0 and f"/{nodes.prefix}: works" in done.stdout, done.stdout + done.stderr
    missing = nodes.nodes[0].flags[3].replace("://", "://no-such-", 1)
    done = run_twistd("-n", "--pidfile=", "resumable", *flags, missing, cwd=tmp_path, env=CREDENTIALS)
    assert done.returncode == 1 and "no-such-" in done.stdout and "Traceback" not in done.stderr


@long
def test_doctor_looks_at_the_store_and_at_no_directory(nodes: Diskless, tmp_path: Path) -> None:
    (node,) = nodes.nodes
    found = looked(*listen(), *node.arguments()[3:], cwd=tmp_path, env=CREDENTIALS)
    names = {"options", "database", "workers", "spool", "scratch", "daemon", "remotes", "public URL"}
    assert set(found) == names | {"ports", "access", "hooks"}, found
    assert {name for name, said in found.items() if said[0] != "ok"} <= {"ports", "public URL"}, found
    assert "parts of 5 MiB" in found["scratch"][1] and found["daemon"][1].startswith("it is ready")
    assert list(tmp_path.iterdir()) == []
    other = url_of(nodes.store, "elsewhere")
    found = looked(*listen(), "--catalog", nodes.url, "--spool", other, cwd=tmp_path, env=CREDENTIALS)
    assert found["spool"][0] == "bad" and "--spool of one installation" in (found["spool"][2] or "")


@long
def test_the_commands_need_no_directory(nodes: Diskless, tmp_path: Path) -> None:
    (node,) = nodes.nodes
    nodes.tus[0].close()  # an idle connection ends after a while
    path = nodes.tus[0].create(5)
    done = command("ls", "--run-dir", str(node.run_dir), cwd=tmp_path)
    assert done.returncode == 0 and path.rpartition("/")[2] in done.stdout
    done = command("show", "--run-dir", str(node.run_dir), path.rpartition("/")[2], cwd=tmp_path)
    place = nodes.nodes[0].flags[3].partition("?")[0]
    assert f"{place}/{path.rpartition('/')[2]}" in done.stdout and "local copy" not in done.stdout
    environ = {"RESUMABLE_CATALOG": nodes.url, "RESUMABLE_RUN_DIR": str(node.run_dir)}
    done = command("rm", "--yes", path.rpartition("/")[2], cwd=tmp_path, env=environ)
    assert done.returncode == 0, done.stderr
    assert nodes.tus[0].head(path).status == 410
