"""Finished files in places of their own, over a real disk and a restart."""

from __future__ import annotations

import json

from .daemon import Daemon, eventually
from .tus import Tus, metadata, pattern

FLAGS = (
    *("--place", "{metadata[kind]}/{metadata[filename]}", "--sidecar"),
    *("--place-file-mode", "640", "--place-dir-mode", "750"),
)
ONE, TWO = pattern(300_000, seed=51), pattern(1000, seed=52)
NAMED = {"kind": "in", "filename": "../a report.pdf"}


def test_files_are_placed_numbered_read_and_deleted_over_a_restart(daemon: Daemon, tus: Tus) -> None:
    finished = daemon.upload_dir / "finished"
    fields = {"Upload-Metadata": metadata(**NAMED)}
    first, second = (tus.create(len(data), fields, data) for data in (ONE, TWO))
    wanted = {"_a report.pdf": ONE, "_a report (2).pdf": TWO}
    eventually(lambda: files(daemon) == set(wanted) and not ids(daemon))
    for name, data in wanted.items():
        placed = finished / "in" / name
        assert placed.read_bytes() == data
        assert placed.stat().st_mode & 0o777 == 0o640 and placed.stat().st_nlink == 1
        said = json.loads((finished / "in" / f"{name}.info.json").read_text())
        assert (said["size"], said["path"]) == (len(data), f"in/{name}")
        assert said["metadata"] == NAMED
    assert (finished / "in").stat().st_mode & 0o777 == 0o750
    daemon.restart()
    assert (tus.content(first), tus.content(second)) == (ONE, TWO)
    assert tus.offset(first) == len(ONE)
    assert tus.delete(first).status == 204
    assert files(daemon) == {"_a report (2).pdf"}
    (finished / "in" / "_a report (2).pdf").rename(daemon.home / "taken")
    assert tus.offset(second) == len(TWO), "it was handed over"
    assert tus.get(second).status == 404
    assert tus.delete(second).status == 204
    assert (daemon.home / "taken").read_bytes() == TWO
    assert not finished.joinpath("in").exists()


def files(daemon: Daemon) -> set[str]:
    found = (daemon.upload_dir / "finished" / "in").glob("*")
    return {path.name for path in found if not path.name.endswith(".info.json")}


def ids(daemon: Daemon) -> list[str]:
    return [path.name for path in daemon.upload_dir.iterdir() if path.is_file()]
