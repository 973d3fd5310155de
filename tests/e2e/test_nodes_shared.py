"""What nodes do together for the uploads that they share: remotes and events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .daemon import eventually
from .nodes import Nodes
from .tus import pattern

pytestmark = pytest.mark.slow


def events(told: Path) -> list[tuple[str, str]]:
    """Kinds and uploads, in the order in which they came."""
    found = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
    return [(each["type"].rpartition(".")[2], each["subject"]) for each in found]


def test_bytes_that_came_to_any_node_are_stored_and_events_told_once_also_after_a_death(tmp_path: Path) -> None:
    store, told, hook = tmp_path / "store", tmp_path / "told", tmp_path / "hook"
    store.mkdir()
    hook.write_text(f"#!/bin/sh\ncat >> {told}\n")
    hook.chmod(0o755)
    with Nodes(2, "--remote", f"file://{store}", "--hook", f"exec:{hook}", "--part-size", "5M") as nodes:
        here, there = nodes.tus
        data = pattern(12_000_000)
        paths = [here.create(len(data)), there.create(len(data))]
        for number, at in enumerate(range(0, len(data), 3_000_000)):
            for turn, path in enumerate(paths):
                tus = (here, there)[(number + turn) % 2]
                assert tus.patch(path, at, data[at : at + 3_000_000]).status == 204
        ids = [path.rpartition("/")[2] for path in paths]
        assert eventually(lambda: all((store / each).exists() for each in ids))
        assert all((store / each).read_bytes() == data for each in ids)
        for upload_id in ids:
            assert eventually(lambda each=upload_id: ("stored", each) in events(told))
            kinds = [kind for kind, each in events(told) if each == upload_id]
            assert kinds[:2] == ["created", "finished"] and set(kinds[2:]) == {"stored"}
        path = here.create(len(data))
        assert here.patch(path, 0, data[:6_000_000]).status == 204
        nodes.daemons[0].kill()
        assert there.patch(path, 6_000_000, data[6_000_000:]).status == 204
        upload_id = path.rpartition("/")[2]
        assert eventually(lambda: (store / upload_id).exists() and ("stored", upload_id) in events(told))
        assert (store / upload_id).read_bytes() == data
        kinds = [kind for kind, each in events(told) if each == upload_id]
        assert list(dict.fromkeys(kinds)) == ["created", "finished", "stored"]
