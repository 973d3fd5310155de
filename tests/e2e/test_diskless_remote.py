"""Nodes without disks with a further remote, and with hooks that are asked before an upload finishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .daemon import eventually
from .diskless import QUICK, diskless, upload_id
from .hook_server import YES, Document, HookServer, by_type
from .stores import MIB
from .tus import metadata, pattern

pytestmark = [pytest.mark.process, pytest.mark.slow]


def named(document: Document) -> Document:
    """An id for what asks for it."""
    wanted = document["data"]["upload"]["metadata"].get("id")
    return {"allow": True, "change": {"id": wanted}} if wanted else YES


def test_each_further_remote_gets_a_copy_also_after_a_death(tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    with (
        HookServer() as hook,
        HookServer(by_type(before_create=named)) as guard,
        diskless(
            *(tmp_path, 2, *QUICK, "--remote", f"file://{copies}", "--hook", hook.url),
            *("--guard", guard.url, "--guard-questions", "before-create,before-finish"),
        ) as nodes,
    ):
        here, there = nodes.tus
        small, large = pattern(5000, 1), pattern(11 * MIB, 2)
        one, two = here.create(len(small), None, small), there.create(len(large))
        assert there.patch(two, 0, large[: 6 * MIB]).status == 204
        nodes.nodes[1].kill()
        assert here.patch(two, 6 * MIB, large[6 * MIB :]).offset == len(large)
        for path, data in ((one, small), (two, large)):
            copy = copies / upload_id(path)
            assert eventually(copy.exists) and copy.read_bytes() == data
            assert eventually(lambda path=path: hook.of(upload_id(path)).count("stored") == 2)
            assert hook.of(upload_id(path)) == ["created", "finished", "stored", "stored"]
            assert here.content(path) == data
            asked = [each["type"].rpartition(".")[2] for each in guard.documents if each["subject"] == upload_id(path)]
            assert asked == ["before-create", "before-finish"]
        nodes.start()
        foreign = b"of somebody else"
        nodes.store.put(nodes.prefix, "given-by-a-hook-1", foreign)
        path = here.create(len(large), {"Upload-Metadata": metadata(id="given-by-a-hook-1")})
        assert path == "/files/given-by-a-hook-1"
        here.finish(path, large)
        assert eventually(lambda: any("can't become an object" in each.log for each in nodes.nodes))
        assert nodes.store.content(nodes.prefix, "given-by-a-hook-1") == foreign, "it is never replaced"
