"""Disks that are full, read-only or damaged, and too many open files: each really happens, and each has its answer.

Root makes file systems of its own for these; others skip them, with the reason.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import pytest

from .commands import refuse
from .daemon import BOUND, Daemon, eventually
from .disks import Mount, fill, free
from .tus import Tus, check, head_bytes, patch_head, pattern

pytestmark = pytest.mark.slow

MIB = 2**20


@pytest.fixture(scope="module", params=["default", "direct"])
def body_way(request: pytest.FixtureRequest) -> str:
    """Both ways of long bodies."""
    return str(request.param)


@pytest.fixture
def powerless() -> list[str]:
    """A wrapper that takes root's powers away, so that permissions count."""
    if os.getuid() != 0:
        return []
    wrapper = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    if shutil.which("setpriv") is None or subprocess.run([*wrapper, "true"], timeout=BOUND, check=False).returncode:
        pytest.skip("root's powers can't be dropped here (setpriv)")
    return wrapper


# A full disk


def test_no_space_for_an_append(tmpfs: Mount) -> None:
    """no space (reserve reached, ENOSPC, EDQUOT) | 507 on POST and PATCH, bytes kept, Retry-After; DELETE works"""
    place, data = tmpfs(24 * MIB), pattern(30 * MIB, seed=20)
    with Daemon("--reserve", "0", upload_dir=place) as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        small = tus.create(1000, None, data[:1000])
        path = tus.create(len(data))
        answer = tus.patch(path, 0, data)
        assert answer.status == 507 and "retry-after" in answer
        kept = tus.offset(path)
        assert MIB < kept < 24 * MIB
        assert (place / path.removeprefix("/files/")).read_bytes()[:kept] == data[:kept]
        assert tus.content(small) == data[:1000]
        assert tus.patch(path, kept, data[kept:]).status == 507
        assert tus.offset(path) >= kept
        assert tus.delete(path).status == 204
        assert free(place) > 12 * MIB
        again = tus.create(8 * MIB, None, data[: 8 * MIB])
        assert tus.content(again) == data[: 8 * MIB]
        assert not daemon.complaints(), daemon.complaints()


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_goes_on_when_there_is_space_again(chunked: bool, tmpfs: Mount) -> None:
    place, data = tmpfs(40 * MIB), pattern(12 * MIB, seed=21)
    with Daemon("--reserve", "0", upload_dir=place) as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path = tus.create(len(data), None, data[:1000])
        filler = fill(place, keep=5 * MIB)
        answer = tus.patch(path, 1000, [data[1000:]] if chunked else data[1000:])
        assert answer.status == 507
        kept = tus.offset(path)
        assert 1000 <= kept < 6 * MIB
        daemon.restart()
        assert tus.offset(path) == kept
        filler.unlink()
        tus.finish(path, data)
        assert tus.content(path) == data


def test_a_disk_without_a_single_block(tmpfs: Mount) -> None:
    """Everything that needs room says so; everything else works, and so does all of it afterwards."""
    place = tmpfs(24 * MIB)
    with Daemon("--reserve", "0", upload_dir=place) as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path, done = tus.create(5000, None, b"x" * 1000), tus.create(3, None, b"abc")
        filler = fill(place)
        for _ in range(3):
            assert tus.patch(path, 1000, b"y" * 4000).status in (507, 204)
            assert tus.post(3, None, b"abc").status in (507, 201)
            assert tus.post(300_000, None, b"z" * 300_000).status in (507, 201)
            fill(place)
        answers = [tus.post(10**6, None, pattern(10**6, seed=seed)) for seed in range(10)]
        assert answers[-1].status == 507 and "retry-after" in answers[-1]
        assert tus.head(path).status == 200 and tus.content(done) == b"abc"
        assert tus.delete(done).status == 204
        assert tus.head(done).status == 410
        filler.unlink()
        tus.finish(path, b"x" * 1000 + b"y" * 4000)
        assert tus.content(path) == b"x" * 1000 + b"y" * 4000
        assert daemon.stop() == 0
        daemon.start()
        assert tus.head(done).status == 410
        assert tus.content(path) == b"x" * 1000 + b"y" * 4000


def test_a_daemon_starts_on_a_full_disk(tmpfs: Mount) -> None:
    place = tmpfs(24 * MIB)
    with Daemon("--reserve", "8M", upload_dir=place) as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path = tus.create(5000, None, b"x" * 1000)
        daemon.kill()
        filler = fill(place)
        daemon.start()
        assert tus.offset(path) == 1000
        assert eventually(lambda: tus.post(5).status == 507)
        assert tus.patch(path, 1000, b"y" * 4000).status == 507
        assert tus.delete(path).status == 204
        filler.unlink()
        assert daemon.stop() == 0


def test_the_reserve_is_kept(tmpfs: Mount) -> None:
    place, data = tmpfs(64 * MIB), pattern(40 * MIB, seed=22)
    with Daemon("--reserve", "32M", upload_dir=place) as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path = tus.create(len(data))
        answer = tus.patch(path, 0, data)
        assert answer.status == 507 and "retry-after" in answer
        assert free(place) > 30 * MIB
        assert tus.offset(path) > MIB
        assert eventually(lambda: tus.post(5).status == 507)
        assert tus.head(path).status == 200
        assert tus.delete(path).status == 204
        assert eventually(lambda: tus.post(5).status == 201)


def test_a_final_that_does_not_fit_takes_nothing(tmpfs: Mount) -> None:
    """90 MB with 50 MB free and a reserve of 20 MB: 507, the disk stays as it is, and nobody else is refused."""
    place, data = tmpfs(160 * MIB), pattern(90 * MIB, seed=23)
    with Daemon("--reserve", "20M", upload_dir=place) as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        part, late = tus.partial(data), tus.create(None, {"Upload-Concat": "partial", "Upload-Defer-Length": "1"})
        filler = fill(place, keep=50 * MIB)
        before = free(place)
        final = {"Upload-Concat": f"final;{part}"}
        answer = tus.post(None, final)
        assert answer.status == 507 and "retry-after" in answer and "location" not in answer
        waiting = tus.concat(part, part, late)
        assert tus.patch(late, 0, b"abc", {"Upload-Length": "3"}).status == 204, (
            "and what has to wait for space takes none either"
        )
        assert "upload-offset" not in tus.head(waiting)
        assert tus.content(tus.create(MIB, None, data[:MIB])) == data[:MIB]
        assert free(place) > before - 4 * MIB
        assert tus.head(part).offset == len(data)
        filler.unlink()
        assert tus.delete(waiting).status == 204
        answer = tus.post(None, {"Upload-Concat": f"final;{late}"})
        assert answer.status == 201 and answer.offset == 3


def test_a_quota_that_is_used_up(tmpfs: Mount) -> None:
    """no space (reserve reached, ENOSPC, EDQUOT) | 507 on POST and PATCH, bytes kept, Retry-After; DELETE works"""
    place, data = tmpfs(64 * MIB, "usrquota,usrquota_block_hardlimit=20m"), pattern(24 * MIB, seed=30)
    os.chown(place, NOBODY, NOBODY)
    with Daemon("--reserve", "0", upload_dir=place) as daemon:
        daemon.wrapper = as_nobody()
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path = tus.create(len(data))
        answer = tus.patch(path, 0, data)
        assert answer.status == 507 and "retry-after" in answer
        assert free(place) > 40 * MIB, "it was the disk, not the quota"
        kept = tus.offset(path)
        assert MIB < kept < 20 * MIB
        assert (place / path.removeprefix("/files/")).read_bytes()[:kept] == data[:kept]
        assert tus.delete(path).status == 204
        again = tus.create(8 * MIB, None, data[: 8 * MIB])
        assert tus.content(again) == data[: 8 * MIB]
        assert daemon.stop() == 0


NOBODY = 65_534


def as_nobody() -> list[str]:
    """A wrapper that runs as a user who may read everything, for Python's sake, and write what is its own."""
    powers = "-all,+dac_read_search"
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    wrapper = ["setpriv", *user, f"--inh-caps={powers}", f"--ambient-caps={powers}"]
    if shutil.which("setpriv") is None or subprocess.run([*wrapper, "true"], timeout=BOUND, check=False).returncode:
        pytest.skip("no other user can be taken on here (setpriv)")
    return wrapper


# Permissions


def test_a_read_only_file_system(tmpfs: Mount, tmp_path: Path) -> None:
    place = tmpfs(8 * MIB, "ro")
    assert str(place) in refuse("--upload-dir", str(place), cwd=tmp_path)


def test_a_directory_that_becomes_read_only(powerless: list[str]) -> None:
    data = pattern(500_000, seed=24)
    with Daemon() as daemon:
        daemon.wrapper = powerless
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        begun, done = tus.create(len(data), None, data[:1000]), tus.create(3, None, b"abc")
        fresh = tus.create(len(data))
        daemon.upload_dir.chmod(0o555)
        try:
            for body in (data, data[:10]):
                answer = tus.patch(fresh, 0, body)
                assert answer.status == 503 and "retry-after" in answer
                assert tus.offset(fresh) == 0
            assert tus.post(5, None, b"abcde").status == 503
            assert tus.content(done) == b"abc"
            assert tus.patch(begun, 1000, data[1000:2000]).offset == 2000
        finally:
            daemon.upload_dir.chmod(0o755)
        tus.finish(fresh, data)
        tus.finish(begun, data)
        assert tus.content(fresh) == tus.content(begun) == data
        assert not daemon.complaints(), daemon.complaints()


def test_another_user_without_powers(tmp_path: Path) -> None:
    """As a container under any uid."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    place = Path(tempfile.mkdtemp(prefix="resumable-e2e-"))
    try:
        os.chown(place, NOBODY, NOBODY)
        with Daemon(upload_dir=place) as daemon:
            daemon.wrapper = as_nobody()
            daemon.start()
            tus = daemon.attach(Tus(daemon.port))
            assert tus.content(tus.create(3, None, b"abc")) == b"abc"
            assert {path.stat().st_uid for path in place.rglob("*")} == {NOBODY}
            assert daemon.stop() == 0
    finally:
        shutil.rmtree(place)


def test_a_directory_of_somebody_else_at_the_start(powerless: list[str], tmp_path: Path) -> None:
    place = tmp_path / "u"
    place.mkdir(mode=0o555)
    assert str(place) in refuse("--upload-dir", str(place), cwd=tmp_path, wrapper=powerless)


# Too many open files


WAITING = {
    "Upload-Length": "3",
    "Content-Length": "3",
    "Content-Type": "application/offset+octet-stream",
    "Expect": "100-continue",
}


def few_files(count: int = 64) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def test_too_many_open_files() -> None:
    data = pattern(500_000, seed=25)
    with Daemon(preexec=few_files) as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path, done = tus.create(len(data), None, data[:1000]), tus.create(3, None, b"abc")
        crowded = daemon.attach(Tus(daemon.port, timeout=2.0))
        assert crowded.options().status == 200
        with ExitStack() as crowd:
            for _ in range(100):
                crowd.enter_context(tus.wire())
            for size in (100, 400_000):
                # A refusal closes the connection, and there is no room for the next one: it waits or is turned away.
                with suppress(OSError, EOFError):
                    at = crowded.offset(path)
                    answer = crowded.patch(path, at, data[at : at + size])
                    assert answer.status in (204, 503)
                    assert answer.status == 204 or "retry-after" in answer
            with suppress(OSError, EOFError):
                assert crowded.head(done).status in (200, 423)
        tus.close()  # it was idle, and has made room

        def answered() -> bool:
            """Until the server has seen that the crowd is gone, it turns connections away."""
            try:
                return daemon.alive and tus.head(path).status == 200
            except (OSError, EOFError):
                tus.close()
                return False

        assert eventually(answered)
        tus.finish(path, data)
        assert tus.content(path) == data
        assert tus.content(done) == b"abc"
        assert daemon.stop() == 0


def test_who_finds_no_room_is_told_so_by_way_of_its_origin() -> None:
    with Daemon("--cors-origin", "https://a.example", preexec=partial(few_files, 128)) as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        target = tus.create(100)
        tus.close()
        with ExitStack() as crowd:
            busy = [crowd.enter_context(tus.wire()).send(head_bytes("POST", tus.base, WAITING)) for _ in range(64)]
            assert [wire.interim() for wire in busy] == [100] * 64
            newcomer = crowd.enter_context(tus.wire())
            answer = check("GET", newcomer.send(head_bytes("GET", target, {"Origin": "https://a.example"})).answer())
            assert (answer.status, answer["retry-after"]) == (503, "10")
            assert answer["access-control-allow-origin"] == "https://a.example"
            assert newcomer.ended()
            head = crowd.enter_context(tus.wire()).send(head_bytes("HEAD", target)).answer("HEAD")
            assert head.status == 423
            assert busy[0].send(b"abc").answer("POST")["upload-offset"] == "3"
        assert eventually(lambda: tus.head(target).status == 200)
        assert daemon.stop() == 0


def test_more_uploads_at_once_than_files_may_be_open() -> None:
    """Each ends with its bytes or with an answer that says try again; none with wrong bytes."""
    data = pattern(300_000, seed=26)
    with Daemon(preexec=few_files) as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        paths = [tus.create(len(data)) for _ in range(40)]
        with ExitStack() as crowd:
            wires = [crowd.enter_context(tus.wire()) for _ in paths]
            for path, wire in zip(paths, wires, strict=True):
                wire.offer(patch_head(path, 0, len(data)) + data[:100_000])
            for wire in wires:
                wire.offer(data[100_000:])
            statuses = []
            for wire in wires:
                with suppress(EOFError, ConnectionResetError):  # it made room for another one before it had sent a head
                    statuses.append(check("PATCH", wire.answer()).status)
        assert len(statuses) >= 32 and set(statuses) <= {204, 503, 408}
        tus.close()
        for path in paths:
            tus.finish(path, data)
            assert tus.content(path) == data


# Damage


def spoil_header(catalog: Path) -> None:
    with catalog.open("r+b") as file:
        file.write(os.urandom(4096))


def spoil_middle(catalog: Path) -> None:
    with catalog.open("r+b") as file:
        for at in range(4096, catalog.stat().st_size, 8192):
            file.seek(at)
            file.write(os.urandom(2048))


def cut(catalog: Path) -> None:
    os.truncate(catalog, catalog.stat().st_size // 2)


def empty(catalog: Path) -> None:
    os.truncate(catalog, 0)


@pytest.mark.parametrize(
    "spoil",
    [spoil_middle, *(pytest.param(each, marks=pytest.mark.slow) for each in (spoil_header, cut, empty, Path.unlink))],
)
@pytest.mark.parametrize("stopped", [True, False])
def test_a_damaged_catalog(spoil: Callable[[Path], None], stopped: bool) -> None:
    """A damaged catalog is set aside, recovered as far as SQLite can, and reported; uploads that can't be proven
    answer 410; data files are never deleted for it. Never a wrong byte acknowledged."""
    data = pattern(200_000, seed=27)
    with Daemon() as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        finished = [tus.create(1000 + n, None, data[: 1000 + n]) for n in range(30)]
        begun = [tus.create(len(data), None, data[: 5000 + n]) for n in range(30)]
        if stopped:
            assert daemon.stop() == 0
        else:
            daemon.kill()
        files = {path.name for path in daemon.upload_dir.iterdir() if path.is_file()}
        assert len(files) == 60
        spoil(daemon.upload_dir / ".resumable" / "catalog.sqlite3")
        daemon.start()
        for n, path in enumerate(finished):
            answer = tus.get(path)
            assert answer.status == 410 or (answer.status == 200 and answer.body == data[: 1000 + n]), answer
        for n, path in enumerate(begun):
            answer = tus.head(path)
            assert answer.status == 410 or (answer.status == 200 and answer.offset == 5000 + n), answer
            if answer.status == 200:
                tus.finish(path, data)
                assert tus.content(path) == data
        kept = {path.name for path in daemon.upload_dir.rglob("*") if path.is_file()}
        assert files <= kept, "data files were deleted"
        assert tus.content(tus.create(3, None, b"abc")) == b"abc"
        assert daemon.stop() == 0
        daemon.start()
        assert not daemon.complaints(), daemon.complaints()


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("how", ["shorter", "empty", "missing"])
def test_a_damaged_data_file(how: str, running: bool) -> None:
    data = pattern(300_000, seed=28)
    with Daemon() as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        finished, begun = tus.create(len(data), None, data), tus.create(len(data), None, data[:200_000])
        fine = tus.create(len(data), None, data[:100])
        if not running:
            assert daemon.stop() == 0
        for path in (finished, begun):
            file = daemon.upload_dir / path.removeprefix("/files/")
            if how == "missing":
                file.unlink()
            else:
                os.truncate(file, 0 if how == "empty" else 199_999)
        if not running:
            daemon.start()
        assert tus.patch(begun, 200_000, data[200_000:]).status == 410
        assert tus.get(finished).status == 410
        for path in (begun, finished):
            assert tus.head(path).status == 410
            assert tus.patch(path, 0, b"").status == 410
        tus.finish(fine, data)
        assert tus.content(fine) == data
        assert not daemon.complaints(), daemon.complaints()


def test_bytes_that_a_crash_left_behind_are_never_served() -> None:
    """A data file that is longer than its committed offset: what is beyond it never counts."""
    data = pattern(300_000, seed=29)
    with Daemon() as daemon:
        daemon.start()
        tus = daemon.attach(Tus(daemon.port))
        path = tus.create(len(data), None, data[:1000])
        with (daemon.upload_dir / path.removeprefix("/files/")).open("ab") as file:
            file.write(b"\xff" * 299_000)
        assert tus.offset(path) == 1000
        daemon.restart()
        assert tus.offset(path) == 1000
        assert tus.patch(path, 1000, data[1000:2000]).status == 204
        tus.finish(path, data)
        assert tus.content(path) == data


def test_strangers_in_the_directory_are_left_alone() -> None:
    with Daemon() as daemon:
        strangers = ["README", "0" * 32, "f" * 31, "A" * 32, ".hidden"]
        for name in strangers:
            (daemon.upload_dir / name).write_bytes(b"not ours")
        (daemon.upload_dir / ("1" * 32)).mkdir()
        daemon.start()
        with closing(Tus(daemon.port)) as tus:
            assert tus.content(tus.create(3, None, b"abc")) == b"abc"
            assert tus.get("/files/README").status == 404
            assert tus.get("/files/" + "A" * 32).status in (404, 410)
            assert tus.get("/files/" + "1" * 32).status in (404, 410)
        assert daemon.stop() == 0
        there = [path.read_bytes() for path in daemon.upload_dir.rglob("*") if path.name in strangers]
        assert there == [b"not ours"] * len(strangers)
