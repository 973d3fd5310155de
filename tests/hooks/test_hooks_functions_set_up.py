"""Functions as an operator names them: asked only what they answer, refused where they have no part."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from resumable.aio.threads import Pool
from resumable.hooks.functions import EVENTS, QUESTIONS, HookFunction, HookFunctions, gathered, keeping
from resumable.hooks.hooks import HookDependencies, Hooks
from resumable.hooks.settings import BadHookTarget, HookSettings, HookTarget, parse_target
from resumable.model.hooks import Arrived, QuestionKind
from tests.hooks.outbox import MemoryOutbox
from tests.hooks.servers import UPLOAD


def hooks_of(**settings: object) -> Hooks:
    needs = HookDependencies(
        reactor=reactor, clock=reactor, wall=time.time, monotonic=time.monotonic, rng=Random(1),
        new_id=lambda: "ask_1", pool=lambda size: Pool(reactor, size, "hooks"), environment=os.environ,
        source="/files/", path_of=lambda upload_id: f"/data/{upload_id}", stop_upload=lambda *each: None,
    )  # type: ignore[arg-type]  # fmt: skip
    return Hooks(HookSettings(**settings), needs, MemoryOutbox())  # type: ignore[arg-type]


def functions(*made: tuple[str, object]) -> HookFunctions:
    """Functions by the name of what they are for."""
    kept: list[HookFunction] = []
    for name, function in made:
        known = EVENTS if name in EVENTS else QUESTIONS
        keeping(kept.append, known, [name], None)(function)  # type: ignore[type-var]
    return gathered(kept)


def target(*made: tuple[str, object]) -> HookTarget:
    return HookTarget("code", "python", "functions", functions=functions(*made))


def test_only_the_questions_that_a_function_answers_are_asked():
    hooks = hooks_of(guards=[target(("create", print))])
    assert [kind for kind in QuestionKind if hooks.guards.asks(kind)] == [QuestionKind.CREATE]


@pytest.mark.parametrize(("role", "missing"), [("hooks", "@on"), ("guards", "@before")])
def test_a_module_without_such_functions_is_told_with_what_is_missing(role, missing, tmp_path: Path, monkeypatch):
    name = f"no_{role}_here"
    other = "before('create')" if role == "hooks" else "on('finished')"
    (tmp_path / f"{name}.py").write_text(f"from resumable.hooks import before, on\n\n@{other}\ndef it(message): ...\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadHookTarget, match=f"hook mine: python:{name} has no function with {missing}"):
        hooks_of(**{role: [parse_target(f"mine=python:{name}", "hook")]})


@pytest_twisted.ensureDeferred
async def test_a_function_for_progress_needs_no_option() -> None:
    came: Deferred[object] = Deferred()

    async def watch(event) -> None:
        if not came.called:
            came.callback(event.details["received"])

    hooks = hooks_of(hooks=[target(("progress", watch))])
    hooks.start()
    hooks.progress.arrived(UPLOAD.id, lambda: Arrived(UPLOAD, 7))
    assert await came == 7
    await hooks.stop()
