"""Final uploads of a real daemon pass every gate that others do: hooks, remotes, the disk's space, crashes.

The parallel uploads of tus-js-client and Uppy are final uploads.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.waiting import long

from . import tools
from .commands import ask
from .daemon import Daemon, eventually
from .disks import Mount, fill, free
from .hook_server import YES, Document, HookServer, by_type
from .stores import CREDENTIALS, QUICK, Store, proxied
from .tools import NODE, play
from .tus import Tus, check, head_bytes, metadata, pattern

MIB = 2**20
DATA = pattern(1_500_001, seed=51)
GUARD = ("--guard-questions", "before-finish", "--guard")
REFUSAL = {"allow": False, "response": {"status": 422, "body": "A virus.", "headers": {"X-Why": "virus"}}}


def final_of(*parts: str) -> dict[str, str]:
    return {"Upload-Concat": "final;" + " ".join(parts)}


def files(daemon: Daemon) -> set[str]:
    return {each.name for each in Path(daemon.upload_dir).iterdir() if each.is_file()}


def refuse_finals(document: Document) -> Document:
    return REFUSAL if document["data"]["upload"]["partials"] else YES


# the answer


def test_the_answer_comes_with_the_bytes_and_names_no_token(serve: Callable[..., Daemon]) -> None:
    daemon = serve()
    tus = daemon.attach(Tus(daemon.port))
    a, b = tus.partial(DATA), tus.partial(b"abc")
    urls = f"{daemon.origin}{a}?token=s3cr3t", f"{b}?token=s3cr3t"
    answer = tus.post(None, final_of(*urls))
    assert (answer.status, answer.offset) == (201, len(DATA) + 3)
    assert answer["upload-concat"] == f"final;{a} {b}"
    path = tus.path(answer)
    assert tus.head(path)["upload-concat"] == f"final;{a} {b}"
    assert tus.get(path).body == DATA + b"abc"
    assert tus.path(tus.post(None, final_of(a, b))) == path, "the same request"
    daemon.stop()
    for each in Path(daemon.upload_dir, ".resumable").glob("catalog*"):
        assert b"s3cr3t" not in each.read_bytes(), each


def test_used_partials_go_when_they_were_kept_long_enough(serve: Callable[..., Daemon]) -> None:
    daemon = serve("--keep-partials", "1s")
    tus = daemon.attach(Tus(daemon.port))
    path = tus.concat(tus.partial(DATA), tus.partial(b"abc"))
    eventually(lambda: files(daemon) == {path.rpartition("/")[2]})


# hooks


def test_a_refusal_reaches_the_client_and_leaves_the_partials(serve: Callable[..., Daemon]) -> None:
    with HookServer(by_type(before_finish=refuse_finals)) as hook:
        daemon = serve(*GUARD, hook.url, "--hook-forward-headers", "Cookie")
        tus = daemon.attach(Tus(daemon.port))
        a, b = tus.partial(DATA), tus.partial(b"abc")
        status, headers, body = ask(daemon, "POST", Upload_Concat=f"final;{a} {b}", Cookie="session=1")
        assert (status, headers["X-Why"], body.rstrip()) == (422, "virus", b"A virus.")
        (asked,) = [each for each in hook.documents if each["data"]["upload"]["partials"]]
        assert asked["data"]["request"]["method"] == "POST"
        assert asked["data"]["request"]["headers"] == {"cookie": ["session=1"]}
        assert tus.get(a).body == DATA and tus.offset(b) == 3
        eventually(lambda: files(daemon) == {a.rpartition("/")[2], b.rpartition("/")[2]})


def test_a_final_that_cannot_be_finished_expires_and_so_do_its_partials(serve: Callable[..., Daemon]) -> None:
    def fail_finals(document: Document) -> Document | None:
        return None if document["data"]["upload"]["partials"] else YES

    with HookServer(by_type(before_finish=fail_finals)) as hook:
        daemon = serve(*GUARD, hook.url, "--expire-after", "3s")
        tus = daemon.attach(Tus(daemon.port))
        part = tus.partial(b"abc")
        answer = tus.post(None, final_of(part))
        assert answer.status == 503
        path = tus.path(answer)
        assert tus.head(path).status == 200
        assert eventually(lambda: tus.head(path).status == 410 and tus.head(part).status == 410)
        assert eventually(lambda: not files(daemon))


def test_delete_ends_a_final_that_waits_for_a_guard_or_the_remote(serve: Callable[..., Daemon], store: Store) -> None:
    """Its client is told at once, and nothing of it is left, in either tier."""
    asked, held = threading.Event(), threading.Event()

    def hold_finals(document: Document) -> Document:
        if document["data"]["upload"]["partials"] and not held.is_set():
            asked.set()
            held.wait()
        return YES

    with HookServer(by_type(before_finish=hold_finals)) as hook, proxied(store) as proxy:
        remote = store.remote(proxy.url, "deleted")
        daemon = serve(*GUARD, hook.url, "--remote", remote, *QUICK, "--ack", "remote", env=CREDENTIALS)
        tus, other = daemon.attach(Tus(daemon.port)), daemon.attach(Tus(daemon.port))
        parts = [tus.partial(each) for each in (DATA, b"abc")]

        def delete_when(waits: Callable[[], object]) -> None:
            with tus.wire() as wire:
                wire.send(head_bytes("POST", tus.base, final_of(*parts)))
                eventually(waits)
                (final,) = files(daemon) - {each.rpartition("/")[2] for each in parts}
                assert other.delete(f"{tus.base}{final}").status == 204
                assert check("POST", wire.answer("POST")).status == 410
            eventually(lambda: files(daemon) == {each.rpartition("/")[2] for each in parts})

        try:
            delete_when(asked.is_set)
        finally:
            held.set()
        proxy.trouble("PutObject", "hold")
        delete_when(lambda: proxy.struck)
        proxy.calm()
        assert eventually(lambda: not store.objects("deleted") and not store.multiparts("deleted"))


@pytest.mark.parametrize("scenario", ["parallel_once", "uppy_parallel_once"])
def test_clients_hear_of_a_refusal(scenario: str, node: str, serve: Callable[..., Daemon], source: Path) -> None:
    with HookServer(by_type(before_finish=refuse_finals)) as hook:
        daemon = serve(*GUARD, hook.url)
        played = fail(node, scenario, daemon, source)
        assert "422" in played
        eventually(lambda: len(files(daemon)) == 3)  # the partials are as they were


@pytest.mark.parametrize("scenario", ["parallel", "uppy_parallel"])
def test_clients_parallel_uploads_become_one_file(
    scenario: str, node: str, serve: Callable[..., Daemon], source: Path
) -> None:
    daemon = serve("--keep-partials", "0")
    played = play(node, scenario, daemon, source)
    assert daemon.attach(Tus(daemon.port)).get(played["path"]).body == DATA
    assert eventually(lambda: len(files(daemon)) == 1)


def fail(node: str, scenario: str, daemon: Daemon, source: Path) -> str:
    """A scenario that has to fail; what it says."""
    command = [node, "scenarios.mjs", scenario, daemon.url, str(source)]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=tools.RUN_BOUND, check=False)
    assert done.returncode == 1, done
    return done.stdout.splitlines()[-1]


# --ack remote


@pytest.mark.parametrize("scenario", ["parallel_once", pytest.param("uppy_parallel_once", marks=pytest.mark.slow)])
def test_with_ack_remote_nobody_is_told_of_success_before_it_is_stored(
    scenario: str, node: str, serve: Callable[..., Daemon], source: Path, store: Store
) -> None:
    with proxied(store) as proxy:
        remote = store.remote(proxy.url, scenario)
        daemon = serve("--remote", remote, *QUICK, "--ack", "remote", "--final-timeout", "1s", env=CREDENTIALS)
        tus = daemon.attach(Tus(daemon.port))
        proxy.down()
        assert "503" in fail(node, scenario, daemon, source)
        parts = [tus.partial(each) for each in (DATA, b"abc")]
        answer = tus.post(None, final_of(*parts))
        assert answer.status == 503 and "retry-after" in answer
        path = tus.path(answer)
        assert "upload-offset" not in tus.head(path)
        proxy.up()
        again = eventually(lambda: one if (one := tus.post(None, final_of(*parts))).status == 201 else None)
        assert tus.path(again) == path and again.offset == len(DATA) + 3
        assert path.rpartition("/")[2] in store.objects(scenario)


# the disk


@pytest.mark.parametrize("scenario", ["parallel_once", pytest.param("uppy_parallel_once", marks=pytest.mark.slow)])
def test_clients_hear_that_the_disk_is_too_small(
    scenario: str, node: str, serve: Callable[..., Daemon], source: Path, tmpfs: Mount
) -> None:
    """Their partials fit above the reserve, and all of them once more don't."""
    place = tmpfs(64 * MIB)
    daemon = serve("--reserve", "32M", upload_dir=place)
    filler = fill(place, keep=34 * MIB)
    assert "507" in fail(node, scenario, daemon, source)
    assert free(place) > 31 * MIB and len(files(daemon)) == 3 + 1
    filler.unlink()  # it is noticed within a second: a client that tries again gets through
    played = play(node, scenario.removesuffix("_once"), daemon, source)
    assert daemon.attach(Tus(daemon.port)).get(played["path"]).body == DATA


# crashes


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_kill_9_while_it_is_put_together(delay: float, serve: Callable[..., Daemon]) -> None:
    """Whatever had been done, the same request again has one final, whole."""
    daemon = serve("--keep-partials", "0")
    tus = daemon.attach(Tus(daemon.port))
    data = pattern(8 * MIB + 5, seed=52)
    parts = [tus.partial(data), tus.partial(b"abc")]

    def post() -> None:
        client = Tus(daemon.port)
        with suppress(OSError, EOFError):
            client.post(None, final_of(parts[0], *parts, parts[0]))
        client.close()

    asking = threading.Thread(target=post)
    asking.start()
    asking.join(delay)  # killed then, wherever it is
    daemon.kill()
    asking.join()
    daemon.start()
    tus = daemon.attach(Tus(daemon.port))
    answer = tus.post(None, final_of(parts[0], *parts, parts[0]))
    assert answer.status == 201 and answer.offset == 3 * len(data) + 3
    assert tus.get(tus.path(answer)).body == data * 2 + b"abc" + data
    eventually(lambda: len(files(daemon)) == 1)


# blocks that are shared


SHARES = {"xfs": True, "btrfs": True, "tmpfs": False}


@pytest.fixture(params=list(SHARES))
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, bool]]:
    """A file system of our own, and whether it shares blocks between files."""
    kind, image, place = request.param, tmp_path / "image", tmp_path / "mounted"
    make = shutil.which(f"mkfs.{kind}", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if os.getuid() != 0 or (make is None and SHARES[kind]):
        pytest.skip(f"only root may mount a file system, and mkfs.{kind} has to be there")
    place.mkdir()
    commands = [["mount", "-t", "tmpfs", "-o", f"size={400 * MIB}", "tmpfs", str(place)]]
    if make is not None and SHARES[kind]:
        with image.open("wb") as file:
            file.truncate(400 * MIB)
        commands = [[make, "-q", str(image)], ["mount", "-o", "loop", str(image), str(place)]]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            pytest.skip(f"no {kind} here: {done.stderr.strip()}")
    yield place, SHARES[kind]
    subprocess.run(["umount", "-l", str(place)], timeout=60, check=False)


class Peak:
    """The most that was taken of a file system while this was entered."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._before = 0
        self._before = self.used()
        self.bytes = 0

    def used(self) -> int:
        """What is taken now, beside what was then."""
        found = os.statvfs(self._place)
        return (found.f_blocks - found.f_bfree) * found.f_frsize - self._before

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            self.bytes = max(self.bytes, self.used())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.slow
def test_what_a_final_takes_of_the_disk(system: tuple[Path, bool], serve: Callable[..., Daemon]) -> None:
    """At the peak at most twice a final's length; where the file system shares blocks, its length plus one step; its
    length after `--keep-partials`."""
    place, shares = system
    half, small = 40 * MIB, 2 * MIB
    daemon = serve("--keep-partials", "0", "--reserve", "0", upload_dir=place / "uploads")
    tus = daemon.attach(Tus(daemon.port))
    parts = [tus.partial(pattern(half, seed=seed)) for seed in (53, 54)]
    os.sync()
    with Peak(place) as peak:  # beside the partials
        path = tus.concat(*parts)
        assert eventually(lambda: len(files(daemon)) == 1)
        os.sync()
    assert peak.bytes <= (8 * MIB if shares else 2 * half) + small, f"{peak.bytes / MIB:.1f} MiB"

    def settled() -> bool:
        os.sync()  # btrfs frees what was removed with its next transaction
        return peak.used() <= small

    assert eventually(settled), f"{peak.used() / MIB:.1f} MiB"
    assert tus.offset(path) == 2 * half


# many


@pytest.mark.slow
@pytest.mark.parametrize("count", [3_000, pytest.param(20_000, marks=long)])
def test_many_finals_that_wait_for_one_partial_disturb_nobody(serve: Callable[..., Daemon], count: int) -> None:
    """Each with a name of its own, on one unfinished partial: nobody waits for them, all are made."""
    makers = 4
    daemon = serve("--keep-partials", "0", "--log-level", "warn")
    tus = daemon.attach(Tus(daemon.port, timeout=120))
    part = tus.create(3, {"Upload-Concat": "partial"})

    def make(first: int) -> None:
        client = daemon.attach(Tus(daemon.port, timeout=120))
        for number in range(first, count, makers):
            answer = client.post(None, {**final_of(part), "Upload-Metadata": metadata(filename=f"{number}.bin")})
            assert answer.status == 201 and "upload-offset" not in answer

    threads = [threading.Thread(target=make, args=(first,)) for first in range(makers)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(files(daemon)) <= 1
    daemon.kill()
    daemon.start()  # they are taken up in steps
    tus = daemon.attach(Tus(daemon.port, timeout=120))
    assert tus.patch(part, 0, b"abc").status == 204
    waits = []
    while len(files(daemon)) < count + len(waits):
        small = tus.partial(b"xyz")
        began = time.monotonic()
        assert tus.post(None, final_of(small)).offset == 3
        waits.append(time.monotonic() - began)
    print(f"others' finals: median {sorted(waits)[len(waits) // 2]:.3f} s, at most {max(waits):.3f} s")
    assert tus.head(part).status in (200, 410)
