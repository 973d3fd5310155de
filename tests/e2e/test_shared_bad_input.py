"""What is wrong with a database or a shared directory is one line that says what to change; and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from resumable.catalog.postgres.postgres_schema import MIGRATIONS
from resumable.cli.admin_client import AdminLine
from tests.own_postgres import OwnPostgres, bouncer, bouncer_program

from .commands import ask, refuse
from .daemon import BOUND, ROOT, Daemon, eventually, free_port, run_twistd
from .disks import fill
from .nodes import Nodes
from .tus import pattern

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    """One that asks for passwords where it is reached as user "careful"."""
    server = OwnPostgres("max_connections = 30")
    server.let_in("local all careful scram-sha-256", "local all all trust")
    with server:
        server.do("CREATE ROLE careful LOGIN SUPERUSER PASSWORD 'right'")
        yield server


def new_database(postgres: OwnPostgres, name: str) -> str:
    postgres.do(f'CREATE DATABASE "{name}"')
    return postgres.at(name)


def refused(url: str, cwd: Path, *flags: str, **more: object) -> str:
    listen = ("--listen", f"tcp:{free_port()}:interface=127.0.0.1")
    run = ("--run-dir", str(cwd / "run"))
    return refuse("--catalog", url, *run, *listen, *flags, cwd=cwd, **more)  # type: ignore[arg-type]


def ready(node: Daemon) -> tuple[int, dict[str, str]]:
    """The status of /readyz, and what is wrong, as operators see it."""
    socket = Path(node.flags[node.flags.index("--run-dir") + 1]) / "admin.sock"
    told = AdminLine(f"unix:{socket}").ask("GET", "/readyz").document
    return ask(node, "GET", "/readyz")[0], told["wrong"]


def healthy(node: Daemon) -> bool:
    return ask(node, "GET", "/healthz")[0] == 200


# The database at the start


def test_a_wrong_password(postgres: OwnPostgres, tmp_path: Path) -> None:
    said = refused(postgres.at(user="careful", password="wrong-secret"), tmp_path)
    assert "password authentication failed" in said and "correct PGPASSWORD" in said
    assert "wrong-secret" not in said


@pytest.mark.parametrize(
    ("host", "says"),
    [("no-such-host.invalid", "correct the host"), ("127.0.0.1:1", "start the server, or correct --catalog")],
)
def test_a_server_that_is_not_there(host: str, says: str, tmp_path: Path) -> None:
    assert says in refused(f"postgresql://u@{host}/uploads", tmp_path)


def test_an_unknown_database(postgres: OwnPostgres, tmp_path: Path) -> None:
    assert "make it (createdb)" in refused(postgres.at("nowhere"), tmp_path)


def test_an_unknown_user(postgres: OwnPostgres, tmp_path: Path) -> None:
    assert "correct --catalog" in refused(postgres.at(user="nobody"), tmp_path)


def test_a_user_that_may_make_no_tables(postgres: OwnPostgres, tmp_path: Path) -> None:
    new_database(postgres, "granted")
    postgres.do("CREATE ROLE humble LOGIN")
    assert "GRANT" in refused(postgres.at("granted", "humble"), tmp_path)


def test_a_database_that_is_read_only(postgres: OwnPostgres, tmp_path: Path) -> None:
    url = new_database(postgres, "still")
    postgres.do("ALTER DATABASE still SET default_transaction_read_only = on")
    assert "default_transaction_read_only" in refused(url, tmp_path)


def test_a_standby(tmp_path: Path) -> None:
    with OwnPostgres() as primary:
        primary.stop()
        (primary.directory / "standby.signal").touch()
        primary.start()
        assert "name the primary" in refused(primary.url, tmp_path)


def test_a_server_that_does_not_sync(tmp_path: Path) -> None:
    with OwnPostgres("fsync = off") as careless:
        assert "fsync = off" in refused(careless.url, tmp_path)


def test_all_connections_are_taken(postgres: OwnPostgres, tmp_path: Path) -> None:
    postgres.do("CREATE ROLE plain LOGIN")
    postgres.do("CREATE DATABASE crowded OWNER plain")
    with ExitStack() as taken, pytest.raises(psycopg.OperationalError):
        while True:
            taken.enter_context(psycopg.connect(postgres.at("crowded", "plain")))
    with crowd(postgres, "crowded"):
        said = refused(postgres.at("crowded", "plain"), tmp_path)
    assert "raise max_connections, or the limit of the role or the database, or start fewer workers" in said


@contextmanager
def crowd(postgres: OwnPostgres, database: str) -> Iterator[None]:
    """All connections that the user may have are taken."""
    with ExitStack() as taken:
        try:
            while True:
                taken.enter_context(psycopg.connect(postgres.at(database, "plain")))
        except psycopg.OperationalError:
            yield


def test_tables_of_a_newer_release(postgres: OwnPostgres, tmp_path: Path) -> None:
    url = new_database(postgres, "newer")
    with Nodes(1, url=url):
        pass
    postgres.do(f"UPDATE installation SET version = {len(MIGRATIONS) + 2}, oldest = {len(MIGRATIONS) + 1}", "newer")
    assert "upgrade this one" in refused(url, tmp_path)
    postgres.do(f"UPDATE installation SET oldest = {len(MIGRATIONS)}", "newer")
    assert "--upload-dir" in refused(url, tmp_path)  # it may use them, and wants their directory


@pytest.mark.skipif(bouncer_program() is None, reason="PgBouncer is not installed: apt-get install pgbouncer")
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_that_shares_connections(mode: str, postgres: OwnPostgres, tmp_path: Path) -> None:
    with bouncer(new_database(postgres, f"pooled-{mode}"), mode) as url:
        said = refused(url, tmp_path)
    assert "pool_mode = session" in said


@pytest.mark.skipif(bouncer_program() is None, reason="PgBouncer is not installed: apt-get install pgbouncer")
def test_a_pooler_that_keeps_connections_is_fine(postgres: OwnPostgres) -> None:
    data = pattern(300_000, 1)
    with bouncer(new_database(postgres, "pooled-session"), "session") as url, Nodes(2, url=url) as nodes:
        here, there = nodes.tus
        path = here.create(len(data))
        assert here.patch(path, 0, data[:100_000]).offset == 100_000
        there.finish(path, data)
        assert here.content(path) == data
        assert not nodes.complaints()
        assert not any("messages of other processes are not heard" in node.log for node in nodes.daemons)


# The command line


def test_several_workers_without_a_database(tmp_path: Path) -> None:
    done = run_twistd("-n", "--pidfile=", "resumable", "--workers", "2", cwd=tmp_path)
    assert done.returncode != 0
    *_, said = (done.stdout + done.stderr).strip().splitlines()
    assert "--workers needs --catalog postgresql://" in said and "Traceback" not in done.stderr


def test_the_driver_is_not_installed(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "psycopg"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('there is none')")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"PYTHONPATH": os.pathsep.join([str(hidden.parent), path])}
    done = run_twistd("-n", "--pidfile=", "resumable", "--catalog", "postgresql:///x", cwd=tmp_path, env=env)
    said = (done.stdout + done.stderr).strip().splitlines()
    assert done.returncode == 1 and len(said) == 1, said
    assert said[0].endswith("pip install 'resumable-server[postgres]'")


# The upload directory at the start


def test_a_directory_of_another_installation(postgres: OwnPostgres, tmp_path: Path) -> None:
    data = pattern(5000, 2)
    with Nodes(1, url=new_database(postgres, "first")) as nodes:
        path = nodes.tus[0].create(len(data), None, data)
        other = new_database(postgres, "second")
        said = refused(other, tmp_path, "--upload-dir", str(nodes.upload_dir))
        assert "belongs to another catalog" in said and "--catalog and --upload-dir" in said
        assert nodes.tus[0].content(path) == data
        assert ready(nodes.daemons[0]) == (200, {})
    assert postgres.do("SELECT directory FROM installation", "second") == [(None,)]


@pytest.mark.parametrize("uploads", [0, 1])
def test_an_empty_directory_where_another_one_is_shared(uploads: int, postgres: OwnPostgres, tmp_path: Path) -> None:
    """A node whose disk isn't mounted, or has another one: also before there is any upload."""
    url = new_database(postgres, f"unmounted{uploads}")
    with Nodes(1, url=url) as nodes:
        paths = [nodes.tus[0].create(3, None, b"abc") for _ in range(uploads)]
        said = refused(url, tmp_path)
        assert "is not the one that the servers of this catalog share: mount that" in said
        assert [nodes.tus[0].content(path) for path in paths] == [b"abc"] * uploads
    assert not (tmp_path / "uploads" / ".resumable" / "marker").exists()


def test_a_copy_of_the_directory_that_others_use(postgres: OwnPostgres, tmp_path: Path) -> None:
    """Its marker is the same, but who lives has left a sign in one of them only."""
    url = new_database(postgres, "copied")
    copy = tmp_path / "uploads"
    with Nodes(1, url=url) as nodes:
        nodes.tus[0].create(3, None, b"abc")
        shutil.copytree(nodes.upload_dir, copy)
        shutil.rmtree(copy / ".resumable" / "workers")
        assert "is not the one that the servers of this catalog share: mount that" in refused(url, tmp_path)
        assert list((nodes.upload_dir / ".resumable" / "workers").iterdir()) != []
        nodes.daemons[0].stop()
        assert list((nodes.upload_dir / ".resumable" / "workers").iterdir()) == []


def test_two_nodes_that_start_at_once_with_two_empty_directories(postgres: OwnPostgres) -> None:
    """One of them has its directory recorded; the other ends, whichever makes its marker first."""
    for number in range(3):
        url = new_database(postgres, f"race{number}")
        homes = [Nodes(1, url=url), Nodes(1, url=url)]
        ended: list[Nodes] = []

        def start(nodes: Nodes, ended: list[Nodes] = ended) -> None:
            try:
                nodes.start()
            except AssertionError:
                ended.append(nodes)

        threads = [threading.Thread(target=start, args=(nodes,)) for nodes in homes]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        try:
            (loser,) = ended
            assert "is not the one that the servers of this catalog share" in loser.daemons[0].log
            assert not (loser.upload_dir / ".resumable" / "marker").exists()
            (winner,) = (nodes for nodes in homes if nodes is not loser)
            assert winner.tus[0].content(winner.tus[0].create(3, None, b"abc")) == b"abc"
        finally:
            for nodes in homes:
                nodes.close()


def test_a_directory_with_a_catalog_of_its_own(postgres: OwnPostgres, tmp_path: Path) -> None:
    with Daemon() as alone:
        alone.start().stop()
        said = refused(new_database(postgres, "taken"), tmp_path, "--upload-dir", str(alone.upload_dir))
    assert "resumable catalog move --to postgresql://" in said


# The upload directory later


def moved(path: Path, there: Path) -> None:
    """As an unmount, and a mount, look to whoever goes by the path."""
    path.rename(there)


@pytest.mark.parametrize("leaves", [False, True], ids=["nothing there", "an empty directory there"])
def test_a_directory_that_is_unmounted_meanwhile(leaves: bool, postgres: OwnPostgres) -> None:
    data = pattern(300_000, 4)
    with Nodes(2, url=new_database(postgres, f"gone{leaves}")) as nodes:
        here, there = nodes.tus
        done = here.create(len(data), None, data)
        path = here.create(len(data))
        assert here.patch(path, 0, data[:100_000]).offset == 100_000
        away = nodes.home / "away"
        moved(nodes.upload_dir, away)
        if leaves:
            nodes.upload_dir.mkdir()
        for node, client in zip(nodes.daemons, nodes.tus, strict=True):
            status, wrong = ready(node)
            assert status == 503 and "directory" in wrong
            assert healthy(node)
            for answer in (
                client.patch(path, 100_000, data[100_000:]),
                client.post(3, None, b"abc"),
                client.get(done),
            ):
                assert answer.status == 503, answer
                assert int(answer["retry-after"]) > 0
            assert client.head(path).status == 200 and client.offset(path) == 100_000
        if leaves:
            shutil.rmtree(nodes.upload_dir)
        moved(away, nodes.upload_dir)
        assert eventually(lambda: all(ready(node) == (200, {}) for node in nodes.daemons))
        there.finish(path, data)
        assert here.content(path) == there.content(done) == data
        assert not nodes.complaints()
    assert postgres.do("SELECT count(*) FROM uploads WHERE gone IS NOT NULL", f"gone{leaves}") == [(0,)]


# The database later


def test_all_connections_are_taken_later(postgres: OwnPostgres) -> None:
    postgres.do("CREATE ROLE plain2 LOGIN")
    postgres.do("CREATE DATABASE crowded2 OWNER plain2")
    with Nodes(1, url=postgres.at("crowded2", "plain2")) as nodes:
        node, client = nodes.daemons[0], nodes.tus[0]
        path = client.create(10, None, b"01234")
        postgres.do("ALTER ROLE plain2 CONNECTION LIMIT 0")
        postgres.do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'plain2'")
        assert client.patch(path, 5, b"56789").status == 503
        assert eventually(lambda: "raise max_connections" in ready(node)[1].get("catalog", ""))
        assert client.head(path).status == 423 and healthy(node)
        postgres.do("ALTER ROLE plain2 CONNECTION LIMIT -1")
        assert eventually(lambda: ready(node) == (200, {}))
        client.finish(path, b"0123456789")
        assert not nodes.complaints(), nodes.daemons[0].log[-6000:]


def test_a_database_that_becomes_read_only(postgres: OwnPostgres) -> None:
    with Nodes(1, url=new_database(postgres, "stiller")) as nodes:
        node, client = nodes.daemons[0], nodes.tus[0]
        path = client.create(10, None, b"01234")
        postgres.do("ALTER SYSTEM SET default_transaction_read_only = on")
        postgres.do("SELECT pg_reload_conf()")
        try:
            assert eventually(lambda: "default_transaction_read_only" in ready(node)[1].get("catalog", ""))
            assert client.patch(path, 5, b"56789").status == 503
            assert client.offset(path) == 5 and healthy(node)
        finally:
            with psycopg.connect(postgres.url, options="-c default_transaction_read_only=off", autocommit=True) as own:
                own.execute("ALTER SYSTEM RESET default_transaction_read_only")
                own.execute("SELECT pg_reload_conf()")
        assert eventually(lambda: ready(node) == (200, {}))
        client.finish(path, b"0123456789")
        assert client.content(path) == b"0123456789"
        assert node.alive and not nodes.complaints()


@pytest.fixture
def small() -> Iterator[Path]:
    """A small file system where PostgreSQL's own user gets to."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    place = Path(tempfile.mkdtemp(prefix="small"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={24 << 20}", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND, check=False)
    if done.returncode != 0:
        place.rmdir()
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], timeout=BOUND, check=False)
    place.rmdir()


def test_the_disk_of_the_database_is_full(postgres: OwnPostgres, small: Path) -> None:
    place = small
    owner = postgres.directory.stat()
    space = place / "space"
    space.mkdir()
    for each in (place, space):
        os.chown(each, owner.st_uid, owner.st_gid)
        each.chmod(0o755)
    postgres.do(f"CREATE TABLESPACE tiny LOCATION '{space}'")
    postgres.do("CREATE DATABASE full_one TABLESPACE tiny")
    try:
        with Nodes(1, url=postgres.at("full_one")) as nodes:
            node, client = nodes.daemons[0], nodes.tus[0]
            path = client.create(10, None, b"01234")
            filler = fill(place)
            told = {"Upload-Metadata": f"k {'YWJj' * 500}"}
            answers = [client.post(10, told)]
            while answers[-1].status == 201 and len(answers) < 300:
                answers.append(client.post(10, told))
            assert answers[-1].status == 507, answers[-1]
            assert client.offset(path) == 5 and healthy(node)
            filler.unlink()
            assert eventually(lambda: client.post(10, told).status == 201)
            assert eventually(lambda: ready(node) == (200, {}))
            client.finish(path, b"0123456789")
            assert not nodes.complaints()
    finally:
        postgres.do("DROP DATABASE IF EXISTS full_one WITH (FORCE)")
        postgres.do("DROP TABLESPACE IF EXISTS tiny")
