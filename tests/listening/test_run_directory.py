"""The directory for what is one daemon's own while it runs."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable.listening import run_directory
from resumable.model.errors import StartupError


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The machine's own directories are not touched. This is the temporary one; a socket's path is short."""
    monkeypatch.setattr(run_directory, "USUAL", tmp_path / "file" / "usual")
    (tmp_path / "file").touch()
    with tempfile.TemporaryDirectory(prefix="t") as path:
        monkeypatch.setattr(tempfile, "tempdir", path)
        yield Path(path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


def test_it_is_the_one_that_is_given(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "b"
    assert run_directory.made(wanted, {"RUNTIME_DIRECTORY": str(tmp_path / "other")}) == wanted
    assert mode(wanted) == 0o700


def test_it_is_systemds_first_one(tmp_path: Path) -> None:
    both = f"{tmp_path / 'one'}:{tmp_path / 'two'}"
    assert run_directory.made(None, {"RUNTIME_DIRECTORY": both}) == tmp_path / "one"


def test_it_is_the_usual_one_where_that_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "USUAL", tmp_path / "usual")
    assert run_directory.made(None, {}) == tmp_path / "usual"
    assert mode(tmp_path / "usual") == 0o700


def test_else_it_is_a_new_one_that_goes_at_the_end(tmp_path: Path) -> None:
    path = run_directory.made(None, {"RUNTIME_DIRECTORY": str(tmp_path / "file" / "below")})
    assert path.parent == Path(tempfile.gettempdir()) and mode(path) == 0o700
    run_directory.removed(path)
    assert not path.exists()


def test_one_that_was_given_stays_at_the_end(tmp_path: Path) -> None:
    path = run_directory.made(tmp_path / "run", {})
    run_directory.removed(path)
    assert path.is_dir()


@pytest.mark.parametrize("place", ["file/below", "d" * 100])
def test_one_that_can_not_be_used_is_one_line_that_says_what_to_change(place: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"^The run directory [^\n]+ choose another with --run-dir\.$"):
        run_directory.made(tmp_path / place, {})


def test_sockets_of_processes_that_are_gone_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("admin.sock", "admin-3.sock", "other.sock"):
        listen(tmp_path / name).close()
    (tmp_path / "admin-4.sock").touch()
    with listen(tmp_path / "admin-1.sock"):
        assert run_directory.remove_stale(tmp_path) == 2
    left = {each.name for each in tmp_path.iterdir() if each.is_socket()} | {"admin-4.sock"}
    assert left == {"admin-1.sock", "other.sock", "admin-4.sock"} and (tmp_path / "admin-4.sock").is_file()


@pytest.mark.parametrize("name", ["admin.sock", "admin-2.sock"])
def test_two_servers_never_use_the_same_one(name: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with listen(tmp_path / "run" / name):
        with pytest.raises(StartupError, match=r"can't be used \(another server uses it\)"):
            run_directory.made(tmp_path / "run", {})
        other = run_directory.made(None, {"RUNTIME_DIRECTORY": str(tmp_path / "run")})
        assert other.parent == Path(tempfile.gettempdir())
    assert run_directory.made(tmp_path / "run", {}) == tmp_path / "run"


def test_temporary_ones_of_daemons_that_were_killed_go(tmp_path: Path) -> None:
    old = run_directory.made(None, {})
    listen(run_directory.socket_of(old)).close()
    living = run_directory.made(None, {})
    assert not old.exists()
    with listen(run_directory.socket_of(living)):
        run_directory.made(None, {})
    assert living.exists()


def test_the_command_line_finds_the_socket_where_the_daemon_has_put_it(tmp_path: Path) -> None:
    environ = {"RUNTIME_DIRECTORY": str(tmp_path / "one")}
    assert run_directory.found(None, environ) is None
    assert run_directory.found(tmp_path / "x", environ) == tmp_path / "x" / "admin.sock"
    for variables in ({}, environ):
        path = run_directory.socket_of(run_directory.made(None, variables))
        with listen(path):
            assert run_directory.found(None, variables) == path
            assert run_directory.found(None, variables, temporary=False) == (path if variables else None)
        path.unlink()


def test_somebody_elses_temporary_directory_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run_directory.made(None, {})
    uid = os.geteuid()
    with listen(run_directory.socket_of(path)):
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
        assert run_directory.found(None, {}) is None


def test_endpoints_are_settled_once_the_directory_is_known(tmp_path: Path) -> None:
    own = f"unix:address={tmp_path}/admin.sock:mode=600:lockfile=0"
    assert run_directory.settled(("tcp:1", "socket"), tmp_path) == ("tcp:1", own)
