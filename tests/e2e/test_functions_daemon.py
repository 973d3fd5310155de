"""Events reach functions at least once: after an exception, and after the death of the process in the middle of one."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

from resumable.testing import upload_server
from tests.waiting import eventually

from .daemon import Daemon
from .tus import Tus

FAILING = """
import os
from resumable.hooks import on

@on("finished")
def finished(event):
    print("got", event.id, flush=True)
    if not os.path.exists({seen!r}):
        open({seen!r}, "w").close()
        {failure}
"""


def test_an_event_comes_again_with_its_id_after_an_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_hooks.py").write_text(
        FAILING.format(seen=str(tmp_path / "seen"), failure="raise KeyError('first')")
    )
    monkeypatch.chdir(tmp_path)
    with upload_server(hook="python:failing_hooks") as server:
        server.upload(b"x")
        eventually(lambda: server.log.count("got evt_") == 2)
        assert len(set(re.findall(r"got (\S+)", server.log))) == 1
        assert "KeyError" in server.log, "its author finds the reason in the log"


def test_an_event_comes_again_with_its_id_after_the_death_of_the_process() -> None:
    daemon = Daemon("--hook", "python:deadly_hooks")
    seen = daemon.home / "seen"
    failure = "import signal; os.kill(os.getpid(), signal.SIGKILL)"
    (daemon.home / "deadly_hooks.py").write_text(FAILING.format(seen=str(seen), failure=failure))
    with daemon.start():
        with closing(Tus(daemon.port)) as tus:
            tus.create(1, None, b"x")
        assert daemon.wait() == -9
        daemon.start()
        eventually(lambda: daemon.log.count("got evt_") == 2)
        assert len(set(re.findall(r"got (\S+)", daemon.log))) == 1
        assert daemon.stop() == 0
