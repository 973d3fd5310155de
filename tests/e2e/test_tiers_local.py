"""What becomes of the local copy and of the object, and several remotes at once, each with its own rules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .daemon import Daemon, eventually
from .stores import (
    CREDENTIALS,
    MIB,
    QUICK,
    Proxy,
    Store,
    ready,
    replica,
    shown,
    status,
    stored,
    whole,
)
from .tus import Tus, metadata, pattern

pytestmark = pytest.mark.slow

DATA, LARGE = pattern(100_003, seed=1), pattern(11 * MIB, seed=2)


class Site:
    """A daemon, its client, and where its objects are."""

    def __init__(self, daemon: Daemon, prefix: str) -> None:
        self.daemon, self.prefix = daemon, prefix
        self.tus = daemon.attach(Tus(daemon.port))

    def here(self, path: str) -> bool:
        """Whether the local copy is."""
        return (self.daemon.upload_dir / key(path)).exists()


Start = Callable[..., Site]
prefixes = (f"local{number}" for number in itertools.count())


@pytest.fixture
def start(store: Store, proxy: Proxy) -> Iterator[Start]:
    """A daemon with these flags; ``{s3}`` in one is the store's URL, with ``options``."""
    proxy.up()
    proxy.calm()
    with ExitStack() as stack:

        def started(*flags: str, **options: str) -> Site:
            prefix = next(prefixes)
            url = store.remote(proxy.url, prefix, **options)
            written = [each.replace("{s3}", url) for each in flags]
            daemon = stack.enter_context(Daemon(*written, *QUICK, env=CREDENTIALS)).start()
            stack.callback(lambda: daemon.complaints() and pytest.fail("\n".join(daemon.complaints())))
            return Site(daemon, prefix)

        yield started


def key(path: str) -> str:
    return path.rpartition("/")[2]


def gone(site: Site, path: str) -> None:
    eventually(lambda: not site.here(path))


def test_with_drop_the_local_copy_goes_and_the_upload_stays(start: Start, store: Store) -> None:
    """HEAD of a dropped upload: 200."""
    site = start("--remote", "{s3}", "--local", "drop")
    path = site.tus.create(len(LARGE), None, LARGE)
    stored(site.tus, path)
    gone(site, path)
    for _ in range(2):
        head = site.tus.head(path)
        assert (head.status, head.offset, head["upload-length"]) == (200, len(LARGE), str(len(LARGE)))
        assert status(site.tus, path)["local"] == "dropped"
        whole(store, site.prefix, path, LARGE)
        assert site.tus.content(path) == LARGE, "from the store"
        site.daemon.restart()
    assert site.tus.delete(path).status == 204
    eventually(lambda: not store.objects(site.prefix))
    assert site.tus.head(path).status == 410


def test_with_drop_nothing_goes_while_a_remote_lacks_it(start: Start, proxy: Proxy) -> None:
    site = start("--remote", "{s3}", "--local", "drop")
    proxy.down()
    path = site.tus.create(len(DATA), None, DATA)
    eventually(lambda: replica(status(site.tus, path))["trouble"] == "retrying")
    site.daemon.restart()
    assert site.tus.content(path) == DATA
    proxy.up()
    stored(site.tus, path)
    gone(site, path)


def test_with_reclaim_it_stays_until_its_age(start: Start, store: Store) -> None:
    site = start("--remote", "{s3}", "--local", "reclaim", "--reclaim-after", "2s")
    path = site.tus.create(len(DATA), None, DATA)
    stored(site.tus, path)
    gone(site, path)
    assert site.tus.offset(path) == len(DATA)
    whole(store, site.prefix, path, DATA)


def test_with_reclaim_it_stays_while_there_is_space(start: Start) -> None:
    site = start("--remote", "{s3}", "--local", "reclaim")
    path = site.tus.create(len(DATA), None, DATA)
    stored(site.tus, path)
    site.daemon.restart()
    assert site.tus.content(path) == DATA
    assert status(site.tus, path)["local"] == "here"


@pytest.mark.parametrize("kept", [False, True])
def test_deleting_a_stored_upload_deletes_its_object_unless_it_is_to_be_kept(
    kept: bool, start: Start, store: Store, proxy: Proxy
) -> None:
    site = start("--remote", "{s3}", "--terminate-remote", "keep" if kept else "delete")
    path, other = (site.tus.create(len(DATA), None, DATA) for _ in range(2))
    stored(site.tus, path)
    stored(site.tus, other)
    unfinished = site.tus.create(len(LARGE), None, LARGE[: 6 * MIB])
    eventually(lambda: store.multiparts(site.prefix))
    proxy.forget()
    for each in (path, unfinished):
        assert site.tus.delete(each).status == 204
    eventually(lambda: not store.multiparts(site.prefix))
    expected = {key(path), key(other)} if kept else {key(other)}
    eventually(lambda: set(store.objects(site.prefix)) == expected)
    if kept:
        assert not proxy.counts(path)["DeleteObject"]


def test_a_deletion_waits_for_the_store_also_through_a_restart(start: Start, store: Store, proxy: Proxy) -> None:
    """Aborts and deletes are durable work."""
    site = start("--remote", "{s3}")
    path = site.tus.create(len(DATA), None, DATA)
    stored(site.tus, path)
    unfinished = site.tus.create(len(LARGE), None, LARGE[: 6 * MIB])
    eventually(lambda: store.parts(site.prefix, key(unfinished)))
    proxy.down()
    for each in (path, unfinished):
        assert site.tus.delete(each).status == 204
        assert site.tus.head(each).status == 410
    site.daemon.restart()
    assert store.objects(site.prefix) and store.multiparts(site.prefix)
    proxy.up()
    eventually(lambda: not store.objects(site.prefix) and not store.multiparts(site.prefix))


def test_deleted_while_its_parts_are_on_their_way(start: Start, store: Store, proxy: Proxy) -> None:
    site = start("--remote", "{s3}")
    ready(site.daemon)
    proxy.forget()
    proxy.trouble("UploadPart", "hold", times=0, skip=1)
    path = site.tus.create(len(LARGE), None, LARGE)
    proxy.wait_for(1)
    assert site.tus.delete(path).status == 204
    eventually(lambda: proxy.counts(path)["AbortMultipartUpload"])
    proxy.calm()
    eventually(lambda: not store.multiparts(site.prefix))
    assert not store.objects(site.prefix)


def test_an_upload_that_expires_takes_its_multipart_with_it(start: Start, store: Store) -> None:
    site = start("--remote", "{s3}", "--expire-after", "2s")
    path = site.tus.create(len(LARGE), None, LARGE[: 6 * MIB])
    eventually(lambda: store.multiparts(site.prefix))
    eventually(lambda: not store.multiparts(site.prefix))
    assert site.tus.head(path).status == 410


# -- several remotes


def test_two_remotes_have_the_same(start: Start, store: Store, tmp_path: Path) -> None:
    site = start("--remote", "{s3}", "--remote", f"file://{tmp_path}?key={{date}}/{{id}}", name="cloud")
    for data in (DATA, LARGE, b""):
        path = site.tus.create(len(data), None, data) if data else site.tus.create(0)
        found = stored(site.tus, path)
        whole(store, site.prefix, path, data)
        (copy,) = tmp_path.glob(f"*/{key(path)}")
        assert copy.read_bytes() == data
        assert {each["state"] for each in found["replicas"]} == {"stored"}
        assert replica(shown(site.daemon, path), "cloud")["location"].endswith(key(path))


def test_a_best_effort_remote_that_is_broken_keeps_nothing_from_being_stored(
    start: Start, store: Store, tmp_path: Path
) -> None:
    """Drop waits for it all the same."""
    mount = tmp_path / "nas"
    flags = ("--remote", "{s3}", "--remote", f"file://{mount}?required=no&name=nas", "--local", "drop")
    site = start(*flags, name="cloud")
    path = site.tus.create(len(DATA), None, DATA)
    stored(site.tus, path)
    whole(store, site.prefix, path, DATA)
    broken = eventually(lambda: one if (one := replica(shown(site.daemon, path), "nas"))["error"] else None)
    assert (broken["state"], broken["required"], broken["confirmed"]) == ("open", False, 0)
    assert site.here(path)
    mount.mkdir()
    eventually(lambda: (mount / key(path)).exists())
    gone(site, path)
    assert (mount / key(path)).read_bytes() == DATA


def test_an_upload_waits_for_the_required_one(start: Start, tmp_path: Path, proxy: Proxy) -> None:
    site = start("--remote", "{s3}", "--remote", f"file://{tmp_path}?required=no&name=nas", name="cloud")
    proxy.down()
    path = site.tus.create(len(DATA), None, DATA)
    eventually(lambda: replica(shown(site.daemon, path), "nas")["state"] == "stored")
    assert status(site.tus, path)["state"] == "finished"
    proxy.up()
    stored(site.tus, path)


def test_rules_choose_the_remotes(start: Start, store: Store, tmp_path: Path) -> None:
    """An upload that no required remote took is kept locally, whatever --local says."""
    images = f"file://{tmp_path}?when=filetype:image/*&name=images"
    site = start("--remote", "{s3}", "--remote", images, "--local", "drop", when="filetype:video/*", name="videos")
    for kind, remotes in (("image/png", ["images"]), ("video/mp4", ["videos"]), ("text/plain", [])):
        path = site.tus.create(3, {"Upload-Metadata": metadata(filetype=kind)}, b"abc")
        assert [each["remote"] for each in shown(site.daemon, path)["replicas"]] == remotes
        if remotes:
            stored(site.tus, path)
            gone(site, path)
        assert ((tmp_path / key(path)).exists(), key(path) in store.objects(site.prefix)) == (
            "images" in remotes,
            "videos" in remotes,
        )
    assert site.here(path)
    assert site.tus.content(path) == b"abc"


@pytest.mark.parametrize(
    ("filename", "expected"),
    [("cat.jpg", "eve/{id}-cat.jpg"), ("../../etc/passwd", "eve/{id}-.._.._etc_passwd"), ("a/b", "eve/{id}-a_b")],
)
def test_keys_come_from_metadata_and_stay_in_their_place(
    filename: str, expected: str, start: Start, store: Store
) -> None:
    site = start("--remote", "{s3}", key="{metadata[user]}/{id}-{metadata[filename]}")
    path = site.tus.create(3, {"Upload-Metadata": metadata(user="eve", filename=filename)}, b"abc")
    stored(site.tus, path)
    assert replica(shown(site.daemon, path))["key"] == f"{site.prefix}/{expected}".replace("{id}", key(path))
    assert list(store.objects(site.prefix)) == [expected.replace("{id}", key(path))]


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
def test_a_foreign_object_parks_the_replica_and_the_upload_is_fine(data: bytes, start: Start, store: Store) -> None:
    site = start("--remote", "{s3}", "--local", "drop", "--overwrite", "refuse", key="{metadata[filename]}")
    store.put(site.prefix, "taken", b"somebody else's")
    path = site.tus.create(len(data), {"Upload-Metadata": metadata(filename="taken")}, data)
    parked = eventually(lambda: one if (one := replica(shown(site.daemon, path)))["state"] == "parked" else None)
    assert replica(status(site.tus, path))["trouble"] == "failed"
    assert "another object" in parked["error"] and "taken" in parked["error"]
    assert status(site.tus, path)["state"] == "finished"
    site.daemon.restart()
    assert site.tus.content(path) == data
    assert store.content(site.prefix, "taken") == b"somebody else's"
    assert site.tus.delete(path).status == 204
    eventually(lambda: not store.multiparts(site.prefix))
    assert store.content(site.prefix, "taken") == b"somebody else's"


def test_with_replace_a_foreign_object_is_replaced(start: Start, store: Store) -> None:
    site = start("--remote", "{s3}", "--overwrite", "replace", key="{metadata[filename]}")
    store.put(site.prefix, "taken", b"somebody else's")
    path = site.tus.create(len(DATA), {"Upload-Metadata": metadata(filename="taken")}, DATA)
    stored(site.tus, path)
    assert store.content(site.prefix, "taken") == DATA


def test_only_the_final_of_partial_uploads_goes_to_the_remote(start: Start, store: Store) -> None:
    site = start("--remote", "{s3}")
    parts = [site.tus.partial(DATA), site.tus.partial(LARGE)]
    path = site.tus.concat(*parts)
    stored(site.tus, path)
    whole(store, site.prefix, path, DATA + LARGE)
    assert set(store.objects(site.prefix)) == {key(path)}
