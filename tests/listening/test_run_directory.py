"""The directory for what is one daemon's own while it runs."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from resumable.listening import run_directory
from resumable.listening.run_directory import RunDirectory
from resumable.model.errors import StartupError


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The machine's own directories are not touched. This is the temporary one; a socket's path is short."""
    monkeypatch.setattr(run_directory, "USUAL", tmp_path / "file" / "usual")
    (tmp_path / "file").touch()
    with tempfile.TemporaryDirectory(prefix="t") as path:
        monkeypatch.setattr(tempfile, "tempdir", path)
        yield Path(path)


@pytest.fixture(autouse=True)
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those that stay locked at the end are closed."""
    taken: list[int] = []
    locked = run_directory._locked
    monkeypatch.setattr(run_directory, "_locked", lambda path: taken.append(locked(path)) or taken[-1])
    yield
    for each in taken:
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{each}").partition(" ")[0].endswith("/lock"):
                os.close(each)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


def died(run: RunDirectory) -> None:
    """As all processes of the server do that has it."""
    os.close(run.descriptor)


def test_it_is_the_one_that_is_given(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "b"
    assert run_directory.made(wanted, {"RUNTIME_DIRECTORY": str(tmp_path / "other")}).path == wanted
    assert mode(wanted) == 0o700 and mode(wanted / "lock") == 0o600


def test_it_is_systemds_first_one(tmp_path: Path) -> None:
    both = f"{tmp_path / 'one'}:{tmp_path / 'two'}"
    assert run_directory.made(None, {"RUNTIME_DIRECTORY": both}).path == tmp_path / "one"


def test_it_is_the_usual_one_where_that_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "USUAL", tmp_path / "usual")
    assert run_directory.made(None, {}).path == tmp_path / "usual"
    assert mode(tmp_path / "usual") == 0o700


def test_else_it_is_a_new_one_that_goes_at_the_end(tmp_path: Path) -> None:
    run = run_directory.made(None, {"RUNTIME_DIRECTORY": str(tmp_path / "file" / "below")})
    assert run.path.parent == Path(tempfile.gettempdir()) and mode(run.path) == 0o700
    run.close()
    assert not run.path.exists()


def test_one_that_was_given_stays_at_the_end_and_is_empty(tmp_path: Path) -> None:
    run_directory.made(tmp_path / "run", {}).close()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("place", ["file/below", "d" * 100])
def test_one_that_can_not_be_used_is_one_line_that_says_what_to_change(place: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"^The run directory [^\n]+ choose another with --run-dir\.$"):
        run_directory.made(tmp_path / place, {})


def test_sockets_of_processes_that_are_gone_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("admin.sock", "admin-3.sock", "other.sock"):
        listen(tmp_path / name).close()
    (tmp_path / "admin-4.sock").touch()
    with listen(tmp_path / "admin-1.sock"):
        run_directory.remove_stale(tmp_path)
    left = {each.name for each in tmp_path.iterdir() if each.is_socket()} | {"admin-4.sock"}
    assert left == {"admin-1.sock", "other.sock", "admin-4.sock"} and (tmp_path / "admin-4.sock").is_file()


def test_two_servers_never_use_the_same_one(tmp_path: Path) -> None:
    """From the moment of the choice on, before there is any socket."""
    first = run_directory.made(tmp_path / "run", {})
    with pytest.raises(StartupError, match=r"can't be used \(another server uses it\): choose another with --run-dir"):
        run_directory.made(tmp_path / "run", {})
    other = run_directory.made(None, {"RUNTIME_DIRECTORY": str(tmp_path / "run")})
    assert other.path.parent == Path(tempfile.gettempdir())
    died(first)
    assert run_directory.made(tmp_path / "run", {}).path == tmp_path / "run"


@pytest.mark.parametrize("name", ["admin.sock", "admin-2.sock"])
def test_one_whose_server_answers_is_not_used_even_without_a_lock(name: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with listen(tmp_path / "run" / name), pytest.raises(StartupError, match="another server uses it"):
        run_directory.made(tmp_path / "run", {})
    assert run_directory.made(tmp_path / "run", {})


def test_temporary_ones_of_servers_that_were_killed_are_used_again(tmp_path: Path) -> None:
    old, living = run_directory.made(None, {}), run_directory.made(None, {})
    listen(run_directory.socket_of(old.path)).close()
    died(old)
    assert run_directory.made(None, {}).path == old.path
    assert not run_directory.socket_of(old.path).exists()
    assert run_directory.made(None, {}).path not in (old.path, living.path)


# Who was here before


def killed(path: Path, *worker_ids: str, boot_id: str = "boot") -> RunDirectory:
    """A server that had these workers, and was killed."""
    run = run_directory.made(path, {}, boot_id)
    run.remember(worker_ids)
    died(run)
    return run


def test_who_gets_the_lock_knows_which_workers_are_dead(tmp_path: Path) -> None:
    killed(tmp_path / "run", "one", "other")
    assert run_directory.made(tmp_path / "run", {}, "boot").dead == ("one", "other")


def test_they_are_known_until_they_were_declared_dead(tmp_path: Path) -> None:
    killed(tmp_path / "run", "one", "other")
    again = run_directory.made(tmp_path / "run", {}, "boot")
    again.remember(["third"])
    died(again)
    again = run_directory.made(tmp_path / "run", {}, "boot")
    assert again.dead == ("one", "other", "third")
    again.remember(["fourth"])
    again.forget_dead()
    died(again)
    assert run_directory.made(tmp_path / "run", {}, "boot").dead == ("fourth",)


def test_a_worker_that_lives_keeps_the_lock_of_its_supervisor(tmp_path: Path) -> None:
    run = run_directory.made(tmp_path / "run", {}, "boot")
    worker = os.dup(run.descriptor)  # as one that is inherited
    died(run)
    with pytest.raises(StartupError, match="another server uses it"):
        run_directory.made(tmp_path / "run", {}, "boot")
    os.close(worker)
    assert run_directory.made(tmp_path / "run", {}, "boot")


def test_a_server_that_stopped_leaves_nobody(tmp_path: Path) -> None:
    run = run_directory.made(tmp_path / "run", {}, "boot")
    run.remember(["one"])
    run.close()
    assert run_directory.made(tmp_path / "run", {}, "boot").dead == ()


@pytest.mark.parametrize("boot_id", ["another", ""])
def test_nobody_is_dead_for_a_kernel_that_did_not_run_it(boot_id: str, tmp_path: Path) -> None:
    """Another machine on a shared directory, or a copy of a virtual machine: its locks say nothing of this one's."""
    killed(tmp_path / "run", "one")
    assert run_directory.made(tmp_path / "run", {}, boot_id).dead == ()


def test_nobody_is_dead_where_the_kernel_does_not_know_its_boot(tmp_path: Path) -> None:
    killed(tmp_path / "run", "one", boot_id="")
    assert run_directory.made(tmp_path / "run", {}, "").dead == ()


def test_nobody_is_dead_by_a_copy_of_the_directory(tmp_path: Path) -> None:
    """The server of the first one may live."""
    killed(tmp_path / "run", "one")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert run_directory.made(tmp_path / "copy", {}, "boot").dead == ()


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "virtiofs", "fuse.sshfs", None])
def test_nobody_is_dead_on_a_file_system_that_others_may_have(
    kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locks may be known to one machine only, or be lost while their holder lives."""
    killed(tmp_path / "run", "one")
    monkeypatch.setattr(run_directory, "file_system", lambda path: kind)
    assert run_directory.made(tmp_path / "run", {}, "boot").dead == ()


def test_what_is_no_list_of_ours_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run" / "lock").write_bytes(b"\xff\0 " * 100)
    assert run_directory.made(tmp_path / "run", {}, "boot").dead == ()


def test_the_command_line_finds_the_socket_where_the_daemon_has_put_it(tmp_path: Path) -> None:
    environ = {"RUNTIME_DIRECTORY": str(tmp_path / "one")}
    assert run_directory.found(None, environ) is None
    assert run_directory.found(tmp_path / "x", environ) == tmp_path / "x" / "admin.sock"
    for variables in ({}, environ):
        path = run_directory.socket_of(run_directory.made(None, variables).path)
        with listen(path):
            assert run_directory.found(None, variables) == path
            assert run_directory.found(None, variables, temporary=False) == (path if variables else None)
        path.unlink()


def test_somebody_elses_temporary_directory_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run_directory.made(None, {}).path
    uid = os.geteuid()
    with listen(run_directory.socket_of(path)):
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
        assert run_directory.found(None, {}) is None


def test_endpoints_are_settled_once_the_directory_is_known(tmp_path: Path) -> None:
    own = f"unix:address={tmp_path}/admin.sock:mode=600:lockfile=0"
    assert run_directory.settled(("tcp:1", "socket"), tmp_path) == ("tcp:1", own)


def test_it_is_given_away_with_what_is_its_own_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new owner may have left links there, to what isn't theirs."""
    run = run_directory.made(tmp_path / "run", {})
    (run.path / "other").touch()
    for name in ("admin.sock", "admin-1.sock"):
        (run.path / name).symlink_to(tmp_path / "file")
    given: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "fchown", lambda *values: given.append(values))
    monkeypatch.setattr(
        os, "chown", lambda path, *owner, follow_symlinks=True: given.append((path.name, *owner, follow_symlinks))
    )
    run.give_away(7, 8)
    sockets = [(name, 7, 8, False) for name in ("admin-1.sock", "admin.sock")]
    assert sorted(given, key=str) == sorted([("run", 7, 8, True), *sockets, (run.descriptor, 7, 8)], key=str)


def test_the_copy_of_the_configuration_is_its_users_alone_and_goes_with_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_directory.made(tmp_path / "run", {})
    (run.path / run_directory.CONFIG).symlink_to(tmp_path / "elsewhere")
    path = run.keep_config(b"port = 1\n")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"port = 1\n", 0o600)
    assert not (tmp_path / "elsewhere").exists()
    run.keep_config(b"port = 2\n")
    assert path.read_bytes() == b"port = 2\n"
    given: list[str] = []
    monkeypatch.setattr(os, "fchown", lambda *values: None)
    monkeypatch.setattr(os, "chown", lambda path, *owner, follow_symlinks=True: given.append(path.name))
    run.give_away(7, 8)
    assert given == [run_directory.CONFIG, "run"]
    run.close()
    assert not path.exists()
